package nft

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/netlink"
)

func toRule(f pfconf.Family, p pfconf.Proto, port uint16) pfconf.Rule {
	return pfconf.Rule{
		Label: fmt.Sprintf("regress-%v-%v-to-%d", f, p, port), Direction: pfconf.In, Family: f, Proto: p,
		From: addr(f, 1, 2), To: addr(f, 2, 9), Port: port,
		Action: pfconf.DivertTo, Divert: netip.AddrPortFrom(f.Loopback(), max(port, 1)),
	}
}

func replyRule(f pfconf.Family, p pfconf.Proto, port uint16) pfconf.Rule {
	return pfconf.Rule{
		Label: fmt.Sprintf("regress-%v-%v-reply-%d", f, p, port), Direction: pfconf.Out, Family: f, Proto: p,
		From: addr(f, 2, 9), To: addr(f, 1, 2), Port: port, Action: pfconf.DivertReply,
	}
}

func packetRule(f pfconf.Family, d pfconf.Direction, port, queue uint16) pfconf.Rule {
	r := pfconf.Rule{
		Label: fmt.Sprintf("regress-%v-packet-%v-%d", f, d, port), Direction: d, Family: f, Proto: pfconf.UDP,
		From: addr(f, 1, 2), To: addr(f, 1, 1), Port: port,
		Action: pfconf.DivertPacket, Divert: netip.AddrPortFrom(netip.Addr{}, queue),
	}
	if d == pfconf.Out {
		r.From, r.To = r.To, r.From
	}
	return r
}

func (f *Firewall) counted(t testing.TB, label string) pfconf.Counters {
	t.Helper()
	c, err := f.Counters(t.Context(), []string{label})
	check(t, err)
	return c[label]
}

// A connection to FAKE is accepted by the listener on the loopback address,
// under the name FAKE; its state is there, and gone when killed.
func TestDivertToTCP(t *testing.T) { eachEngine(t, divertToTCP) }

func divertToTCP(t *testing.T, config Config) {
	l := newLab(t)
	f := l.remote.open(t, config)
	for _, family := range pfconf.Families {
		t.Run(family.String(), func(t *testing.T) {
			r := toRule(family, pfconf.TCP, 7001)
			fake := netip.AddrPortFrom(r.To, r.Port)
			var listener net.Listener
			var client net.Conn
			var err error
			l.remote.do(t, func() {
				config := net.ListenConfig{Control: transparent}
				config.SetMultipathTCP(false)
				listener, err = config.Listen(t.Context(), "tcp", r.Divert.String())
			})
			check(t, err)
			defer listener.Close()
			check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
			l.local.do(t, func() { client, err = (&net.Dialer{Deadline: ended()}).Dial("tcp", fake.String()) })
			check(t, err)
			defer client.Close()
			server, err := listener.Accept()
			check(t, err)
			defer server.Close()
			if got := server.LocalAddr().String(); got != fake.String() {
				t.Errorf("accepted as %s, want %v", got, fake)
			}
			least := uint64(2) // SYN and ACK
			if config.lookup() {
				least = 1
			}
			if c := f.counted(t, r.Label); c.Matched < least || c.Done != c.Matched {
				t.Errorf("counters %+v: want %d at least, matched and done", c, least)
			}
			flow := pfconf.Flow{Family: family, Proto: pfconf.TCP, Near: fake, Far: addrPort(client.LocalAddr())}
			wantState(t, f, flow, pfconf.In, "ESTABLISHED")
			if n, err := f.KillFlows(t.Context(), []pfconf.Flow{flow}); n != 1 || err != nil {
				t.Errorf("killed %d states: %v", n, err)
			}
			wantNoState(t, f, flow)
		})
	}
}

// A client bound to FAKE gets its answer, by the conntrack mark.
func TestDivertReply(t *testing.T) { eachEngine(t, divertReply) }

func divertReply(t *testing.T, config Config) {
	l := newLab(t)
	f := l.remote.open(t, config)
	for _, family := range pfconf.Families {
		t.Run("tcp "+family.String(), func(t *testing.T) {
			r := replyRule(family, pfconf.TCP, 7002)
			ofEngine(t, config, r)
			check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
			var listener net.Listener
			var client net.Conn
			var err error
			l.local.do(t, func() { listener, err = net.Listen("tcp", netip.AddrPortFrom(r.To, r.Port).String()) })
			check(t, err)
			defer listener.Close()
			l.remote.do(t, func() {
				d := net.Dialer{Deadline: ended(), Control: transparent,
					LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.From, 0))}
				client, err = d.Dial("tcp", netip.AddrPortFrom(r.To, r.Port).String())
			})
			check(t, err)
			defer client.Close()
			if c := f.counted(t, r.Label); c.Matched < 2 || c.Done != c.Matched || c.Replies < 1 {
				t.Errorf("counters %+v: want SYN and ACK out, SYN+ACK back", c)
			}
			flow := pfconf.Flow{Family: family, Proto: pfconf.TCP, Near: addrPort(client.LocalAddr()),
				Far: netip.AddrPortFrom(r.To, r.Port)}
			wantState(t, f, flow, pfconf.Out, "ESTABLISHED")
			if n, err := f.KillLabels(t.Context(), []string{r.Label}); n != 1 || err != nil {
				t.Errorf("killed %d states: %v", n, err)
			}
			wantNoState(t, f, flow)
		})
		t.Run("icmp "+family.String(), func(t *testing.T) {
			r := replyRule(family, pfconf.ICMP, 0)
			ofEngine(t, config, r)
			check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
			client := l.raw(t, family, r.From)
			flow := pfconf.Flow{Family: family, Proto: pfconf.ICMP, Near: netip.AddrPortFrom(r.From, 0),
				Far: netip.AddrPortFrom(r.To, 0)}
			for id := range 2 {
				ping(t, client, family, r.To, 100+id)
				pong(t, client)
				flow.Echo = uint16(100 + id)
				wantState(t, f, flow, pfconf.Out, "")
			}
			if c, want := f.counted(t, r.Label), (pfconf.Counters{Matched: 2, Done: 2, Replies: 2}); c != want {
				t.Errorf("counters %+v, want %+v", c, want)
			}
			flow.Echo = 0
			if n, err := f.KillFlows(t.Context(), []pfconf.Flow{flow}); n != 2 || err != nil {
				t.Errorf("killed %d states of any id: %v", n, err)
			}
			wantNoState(t, f, flow)
		})
	}
}

// The other protocols' first packet arrives at its socket, is counted once and
// leaves a state.
func TestDivertToDatagrams(t *testing.T) { eachEngine(t, divertToDatagrams) }

func divertToDatagrams(t *testing.T, config Config) {
	l := newLab(t)
	f := l.remote.open(t, config)
	for _, family := range pfconf.Families {
		for _, p := range []pfconf.Proto{pfconf.UDP, pfconf.Raw, pfconf.ICMP} {
			t.Run(p.String()+" "+family.String(), func(t *testing.T) {
				port := uint16(0)
				if p.HasPorts() {
					port = 7003
				}
				r := toRule(family, p, port)
				ofEngine(t, config, r)
				var server net.PacketConn
				var err error
				at := netip.AddrPortFrom(r.To, 0) // raw sockets cannot be on the loopback address
				network := fmt.Sprintf("ip:%d", p.Number(family))
				if p == pfconf.UDP {
					at, network = r.Divert, "udp"
				}
				l.remote.do(t, func() {
					config := net.ListenConfig{Control: transparent}
					server, err = config.ListenPacket(context.Background(), network, bare(at))
				})
				check(t, err)
				defer server.Close()
				check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
				var client net.Conn
				l.local.do(t, func() { client, err = net.Dial(network, bare(netip.AddrPortFrom(r.To, port))) })
				check(t, err)
				defer client.Close()
				_, err = client.Write(echoRequest(t, family, 77))
				check(t, err)
				check(t, server.SetReadDeadline(ended()))
				_, from, err := server.ReadFrom(make([]byte, 100))
				check(t, err)
				if want := client.LocalAddr().String(); from.String() != want {
					t.Errorf("came from %v, want %v", from, want)
				}
				want, phase := pfconf.Counters{Matched: 1, Done: 1}, "UNREPLIED"
				if p == pfconf.ICMP && family == pfconf.Inet6 {
					want.Kernel = 1
					phase = "" // conntrack has seen the kernel's answer before the rule stops it
				}
				if c := f.counted(t, r.Label); c != want {
					t.Errorf("counters %+v, want %+v", c, want)
				}
				flow := pfconf.Flow{Family: family, Proto: p, Near: netip.AddrPortFrom(r.To, port),
					Far: addrPort(client.LocalAddr())}
				if p == pfconf.ICMP {
					flow.Echo = 77
				}
				wantState(t, f, flow, pfconf.In, phase)
			})
		}
	}
}

// A queued packet is matched, and done only when user space gave it back.
func TestDivertPacket(t *testing.T) { eachEngine(t, divertPacket) }

func divertPacket(t *testing.T, config Config) {
	l := newLab(t)
	f := l.remote.open(t, config)
	for _, family := range pfconf.Families {
		for _, d := range []pfconf.Direction{pfconf.In, pfconf.Out} {
			t.Run(d.String()+" "+family.String(), func(t *testing.T) {
				r := packetRule(family, d, 7004, 100+uint16(family)+uint16(d)*10)
				ofEngine(t, config, r)
				check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
				from, to := l.local, l.remote
				if d == pfconf.Out {
					from, to = to, from
				}
				server, client := udpPair(t, from, to, r)
				_, err := client.Write([]byte("no process listens"))
				if d == pfconf.In {
					check(t, err) // on output the sender is told
				}
				if c, want := f.counted(t, r.Label), (pfconf.Counters{Matched: 1}); c != want {
					t.Errorf("counters without a listener %+v, want %+v", c, want)
				}
				var q *socket
				l.remote.do(t, func() { q, err = openSocket() })
				check(t, err)
				defer q.close()
				bindQueue(t, q, r.Divert.Port())
				_, err = client.Write([]byte("queued"))
				check(t, err)
				acceptQueued(t, q, r.Divert.Port())
				check(t, server.SetReadDeadline(ended()))
				b := make([]byte, 100)
				n, err := server.Read(b)
				if err != nil || string(b[:n]) != "queued" {
					t.Errorf("received %q, %v", b[:n], err)
				}
				if c, want := f.counted(t, r.Label), (pfconf.Counters{Matched: 2, Done: 1}); c != want {
					t.Errorf("counters %+v, want %+v", c, want)
				}
			})
		}
	}
}

// A packet that waits in a queue, which may be another program's, is still there when the kernel
// has been asked for its features.
func TestProbesLeaveQueues(t *testing.T) {
	l := newLab(t)
	f := l.remote.open(t, testConfig())
	r := packetRule(pfconf.Inet, pfconf.In, 7004, 100)
	check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
	server, client := udpPair(t, l.local, l.remote, r)
	var q *socket
	var err error
	l.remote.do(t, func() { q, err = openSocket() })
	check(t, err)
	defer q.close()
	bindQueue(t, q, r.Divert.Port())
	_, err = client.Write([]byte("queued"))
	check(t, err)
	for _, feature := range []need.Name{need.NFTables, need.TProxy, need.NFQueue, need.CTNetlink} {
		if a := f.Probe(feature); a.Support != Yes {
			t.Errorf("%s: %+v", feature, a)
		}
	}
	if a := f.probe(missing{}); a.Support != No {
		t.Errorf("an expression that no kernel has: %+v", a)
	}
	acceptQueued(t, q, r.Divert.Port())
	check(t, server.SetReadDeadline(ended()))
	b := make([]byte, 100)
	if n, err := server.Read(b); err != nil || string(b[:n]) != "queued" {
		t.Errorf("received %q, %v", b[:n], err)
	}
}

func udpPair(t *testing.T, from, to namespace, r pfconf.Rule) (server, client net.Conn) {
	t.Helper()
	address := net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.To, r.Port))
	var err error
	to.do(t, func() { server, err = net.ListenUDP("udp", address) })
	check(t, err)
	t.Cleanup(func() { server.Close() })
	from.do(t, func() { client, err = net.DialUDP("udp", nil, address) })
	check(t, err)
	t.Cleanup(func() { client.Close() })
	return server, client
}

// bindQueue and acceptQueued are the least user of linux/netfilter/nfnetlink_queue.h.
func bindQueue(t *testing.T, q *socket, number uint16) {
	t.Helper()
	r := q.request()
	r.Netfilter(unix.NFNL_SUBSYS_QUEUE<<8|2, unix.NLM_F_ACK, unix.AF_UNSPEC, number)
	r.Attr(1, []byte{1, 0, 0, 0})        // NFQA_CFG_CMD: bind
	r.Attr(2, []byte{0, 0, 255, 255, 2}) // NFQA_CFG_PARAMS: whole packets
	check(t, q.Exchange(r.Request, func(m netlink.Message) bool {
		if m.Errno != 0 {
			t.Fatalf("bind queue %d: %v", number, m.Errno)
		}
		return false
	}))
}

func acceptQueued(t *testing.T, q *socket, number uint16) {
	t.Helper()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}, 5000); n != 1 {
		t.Fatalf("no packet in queue %d: %v", number, err)
	}
	var id []byte
	// NFQA_PACKET_HDR
	check(t, q.Drain(func(m netlink.Message) { id = bytes.Clone(netlink.Attribute(attributesOf(m), 1)[:4]) }))
	r := q.request()
	r.Netfilter(unix.NFNL_SUBSYS_QUEUE<<8|1, 0, unix.AF_UNSPEC, number)
	r.Attr(2, append([]byte{0, 0, 0, 1}, id...)) // NFQA_VERDICT_HDR: NF_ACCEPT
	check(t, q.Send(r.Request))
}

// raw is a raw ICMP socket of REMOTE, bound to FAKE.
func (l lab) raw(t *testing.T, f pfconf.Family, at netip.Addr) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	var err error
	l.remote.do(t, func() {
		config := net.ListenConfig{Control: transparent}
		c, err = config.ListenPacket(context.Background(), fmt.Sprintf("ip:%d", pfconf.ICMP.Number(f)), at.String())
	})
	check(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func echoRequest(t *testing.T, f pfconf.Family, id int) []byte {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id}}
	if f == pfconf.Inet6 {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil)
	check(t, err)
	return b
}

func ping(t *testing.T, c net.PacketConn, f pfconf.Family, to netip.Addr, id int) {
	t.Helper()
	_, err := c.WriteTo(echoRequest(t, f, id), &net.IPAddr{IP: to.AsSlice()})
	check(t, err)
}

func pong(t *testing.T, c net.PacketConn) {
	t.Helper()
	check(t, c.SetReadDeadline(ended()))
	_, _, err := c.ReadFrom(make([]byte, 100))
	check(t, err)
}

// bare is the address with the port, or without it where there is none.
func bare(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return unmapped(a.AddrPort())
	case *net.UDPAddr:
		return unmapped(a.AddrPort())
	case *net.IPAddr:
		ip, _ := netip.AddrFromSlice(a.IP)
		return netip.AddrPortFrom(ip.Unmap(), 0)
	}
	return netip.AddrPort{}
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// wantState wants one state of the flow, by looking it up and in the listing.
func wantState(t *testing.T, f *Firewall, flow pfconf.Flow, d pfconf.Direction, phase string) {
	t.Helper()
	found, err := f.Lookup(t.Context(), []pfconf.Flow{flow})
	check(t, err)
	if len(found[0]) != 1 {
		t.Fatalf("%d states of %+v, want 1", len(found[0]), flow)
	}
	s := found[0][0]
	if s.Direction != d || s.Phase != phase || s.Mark != Mark || s.Expires <= 0 {
		t.Errorf("state %+v: want direction %v, phase %q, mark 0x%x", s, d, phase, Mark)
	}
	all, err := f.States(t.Context())
	check(t, err)
	listed := 0
	for _, s := range all {
		if got, ok := s.Flow(); ok && s.Direction == d && got.Near == flow.Near && got.Far == flow.Far &&
			got.Proto == flow.Proto {
			listed++
		}
	}
	if listed == 0 {
		t.Errorf("States does not list the flow: %+v", all)
	}
}

func wantNoState(t *testing.T, f *Firewall, flow pfconf.Flow) {
	t.Helper()
	found, err := f.Lookup(t.Context(), []pfconf.Flow{flow})
	check(t, err)
	if len(found[0]) != 0 {
		t.Errorf("states %+v, want none", found[0])
	}
}

// Close removes the states that the rules marked and no other.
func TestCloseKillsStates(t *testing.T) {
	l := newLab(t)
	f := l.remote.open(t, testConfig())
	r := replyRule(pfconf.Inet, pfconf.ICMP, 0)
	check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
	for _, from := range []netip.Addr{r.From, addr(pfconf.Inet, 1, 1)} {
		c := l.raw(t, pfconf.Inet, from)
		ping(t, c, pfconf.Inet, r.To, 1)
		pong(t, c)
	}
	states := func() (n int) {
		l.remote.do(t, func() {
			s, err := openSocket()
			check(t, err)
			defer s.close()
			entries, err := s.dumpEntries()
			check(t, err)
			n = len(entries)
		})
		return n
	}
	if n := states(); n != 2 {
		t.Errorf("%d states before, want FAKE's and REMOTE's", n)
	}
	check(t, f.Close(t.Context()))
	if n := states(); n != 1 {
		t.Errorf("%d states after, want REMOTE's", n)
	}
}
