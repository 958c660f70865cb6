package nft

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/roles/lab/labtest"
)

// An rdr-to rule translates a connection's destination, there and back, and Natlook tells whom
// it was meant for; of no other question it gives an answer.
func TestRdrAndNatlook(t *testing.T) {
	l := newLab(t)
	f := l.remote.open(t, testConfig())
	for _, family := range pfconf.Families {
		for _, proto := range []pfconf.Proto{pfconf.TCP, pfconf.UDP} {
			t.Run(family.String()+"-"+proto.String(), func(t *testing.T) {
				own := netip.AddrPortFrom(addr(family, 1, 1), 7301)
				fake := netip.AddrPortFrom(addr(family, 2, 9), 7300)
				r := pfconf.Rule{
					Label: "regress-rdr", Direction: pfconf.In, Family: family, Proto: proto,
					From: addr(family, 1, 2), To: fake.Addr(), Port: fake.Port(), Action: pfconf.RdrTo, Divert: own,
				}
				check(t, f.Load(t.Context(), []pfconf.Rule{r}))
				client := converse(t, l, proto, own, fake)

				look := func(d pfconf.Direction, src, dst netip.AddrPort) (answer pfconf.NATAnswer, err error) {
					l.remote.do(t, func() {
						answer, err = Natlook(pfconf.NATQuery{Proto: proto, Direction: d, Src: src, Dst: dst})
					})
					return answer, err
				}
				for _, d := range []pfconf.Direction{0, pfconf.Out} {
					if got, err := look(d, client, own); err != nil ||
						got != (pfconf.NATAnswer{Src: client, Dst: fake}) {
						t.Errorf("direction %d: %+v, %v; want %v to %v", d, got, err, client, fake)
					}
				}
				other := netip.AddrPortFrom(client.Addr(), client.Port()^1)
				for what, ask := range map[string]func() (pfconf.NATAnswer, error){
					"from the other side": func() (pfconf.NATAnswer, error) { return look(pfconf.In, client, own) },
					"of another port":     func() (pfconf.NATAnswer, error) { return look(0, other, own) },
					"before translation":  func() (pfconf.NATAnswer, error) { return look(0, client, fake) },
					"the other way round": func() (pfconf.NATAnswer, error) { return look(0, own, client) },
					"the answers' own":    func() (pfconf.NATAnswer, error) { return look(0, fake, client) },
					"of the other protocol": func() (pfconf.NATAnswer, error) {
						proto ^= 3
						defer func() { proto ^= 3 }()
						return look(0, client, own)
					},
				} {
					if got, err := ask(); !errors.Is(err, pfconf.ErrNoState) {
						t.Errorf("%s: %+v, %v", what, got, err)
					}
				}
				counters, err := f.Counters(t.Context(), []string{r.Label})
				if want := (pfconf.Counters{Matched: 1, Done: 1}); err != nil || counters[r.Label] != want {
					t.Errorf("%+v, %v; want %+v: a connection's first packet", counters[r.Label], err, want)
				}
			})
		}
	}
}

// converse has LOCAL send to fake, and whoever listens at own on REMOTE answer; it gives the
// client's name. The answer must come from fake.
func converse(t *testing.T, l lab, proto pfconf.Proto, own, fake netip.AddrPort) (client netip.AddrPort) {
	t.Helper()
	say := func(c net.Conn, line string) {
		_, err := c.Write([]byte(line))
		check(t, err)
	}
	hear := func(c net.Conn, line string) {
		b := make([]byte, 64)
		check(t, c.SetDeadline(ended()))
		if n, err := c.Read(b); err != nil || string(b[:n]) != line {
			t.Fatalf("%q, %v; want %q", b[:n], err, line)
		}
	}
	var server net.Listener
	var packets *net.UDPConn
	var c net.Conn
	l.remote.do(t, func() {
		var err error
		if proto == pfconf.TCP {
			server, err = net.Listen("tcp", own.String())
		} else {
			packets, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(own))
		}
		check(t, err)
	})
	l.local.do(t, func() {
		var err error
		c, err = net.Dial(proto.String(), fake.String())
		check(t, err)
	})
	t.Cleanup(func() { c.Close() })
	client = netip.MustParseAddrPort(c.LocalAddr().String())
	say(c, "Client\n")
	if proto == pfconf.UDP {
		t.Cleanup(func() { packets.Close() })
		check(t, packets.SetDeadline(ended()))
		_, from, err := packets.ReadFromUDPAddrPort(make([]byte, 64))
		check(t, err)
		_, err = packets.WriteToUDPAddrPort([]byte("Server\n"), netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		check(t, err)
		hear(c, "Server\n")
		return client
	}
	t.Cleanup(func() { server.Close() })
	accepted, err := server.Accept()
	check(t, err)
	t.Cleanup(func() { accepted.Close() })
	hear(accepted, "Client\n")
	say(accepted, "Server\n")
	hear(c, "Server\n")
	return client
}

// Of a connection whose source was translated, Natlook tells who began it.
func TestNatlookOfTranslatedSource(t *testing.T) {
	nft := labtest.Program(t, "nft")
	n := newNamespace(t)
	n.do(t, func() {
		cmd := exec.Command(nft, "-f", "-")
		cmd.Stdin = strings.NewReader(`table ip nat {
			chain post { type nat hook postrouting priority srcnat; udp dport 7400 snat to 127.0.0.9:7401; }
		}`)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		server, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:7400")))
		check(t, err)
		defer server.Close()
		c, err := net.Dial("udp", "127.0.0.1:7400")
		check(t, err)
		defer c.Close()
		_, err = c.Write([]byte("Client\n"))
		check(t, err)
		check(t, server.SetDeadline(ended()))
		_, from, err := server.ReadFromUDPAddrPort(make([]byte, 64))
		check(t, err)
		q := pfconf.NATQuery{Proto: pfconf.UDP, Src: from, Dst: netip.MustParseAddrPort("127.0.0.1:7400")}
		if q.Src.String() != "127.0.0.9:7401" {
			t.Fatalf("came from %v", q.Src)
		}
		want := pfconf.NATAnswer{Src: netip.MustParseAddrPort(c.LocalAddr().String()), Dst: q.Dst}
		for _, d := range []pfconf.Direction{0, pfconf.In, pfconf.Out} {
			q.Direction = d
			got, err := Natlook(q)
			if d == pfconf.Out && errors.Is(err, pfconf.ErrNoState) {
				continue
			}
			if d == pfconf.Out || err != nil || got != want {
				t.Errorf("direction %d: %+v, %v; want %+v", d, got, err, want)
			}
		}
	})
}
