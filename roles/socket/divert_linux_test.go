package socket_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/roles/socket"
)

// queueRule sends UDP packets to the port through the netfilter queue of the
// same number. The native queue expression is not in every kernel; the xt
// target is.
func queueRule(t testing.TB, hook *nftables.ChainHook, to netip.AddrPort) {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	family, addr, length := byte(unix.NFPROTO_IPV4), uint32(16), uint32(4)
	if to.Addr().Is6() {
		family, addr, length = unix.NFPROTO_IPV6, 24, 16
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: fmt.Sprintf("divert-test-%d", to.Port())})
	chain := c.AddChain(&nftables.Chain{Name: "queue", Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityMangle})
	info := make([]byte, 8) // xt_NFQ_info_v3: number, total, flags
	binary.NativeEndian.PutUint16(info, to.Port())
	binary.NativeEndian.PutUint16(info[2:], 1)
	unknown := xt.Unknown(info)
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: addr, Len: length},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: to.Addr().AsSlice()},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, to.Port())},
		&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &unknown},
	}})
	must(t, c.Flush())
	t.Cleanup(func() {
		c.DelTable(table)
		must(t, c.Flush())
	})
}

var hooks = map[string]*nftables.ChainHook{"in": nftables.ChainHookInput, "out": nftables.ChainHookOutput}

func TestRelay(t *testing.T) {
	for name, hook := range hooks {
		t.Run(name, func(t *testing.T) {
			eachLoopback(t, func(t *testing.T, lo netip.Addr) {
				for _, test := range []struct {
					name     string
					omit     []script.Piece
					old, new string
					want     string
				}{
					{"rewritten", nil, "Client", "Packet", "Packet\n"},
					{"as it is", nil, "", "", "Client\n"},
					{"not in it", nil, "Absent", "Packet", "Client\n"},
					{"checksum not mended", []script.Piece{script.Checksum}, "Client", "Packet", ""},
				} {
					t.Run(test.name, func(t *testing.T) {
						queueRule(t, hook, port(lo, 4000))
						p, _ := open(t, script.Divert{Local: port(unspecified(lo), 4000), Omit: test.omit})
						s, _ := open(t, socketFor(datagram, script.Ends{Role: script.Server, Local: port(lo, 4000)}))
						c, _ := connect(t, socketFor(datagram, script.Ends{Role: script.Client, Local: port(lo, 0), Remote: port(lo, 4000)}))
						if _, err := p.Receive(socket.Now); !errors.Is(err, socket.ErrNothing) {
							t.Fatal(err)
						}
						must(t, c.Send([]byte("Client\n"), 0))
						nothing(t, s)
						m := receive(t, p, socket.Now, "Client\n")
						if local, _ := c.Names(); m.From != local || m.To != port(lo, 4000) {
							t.Errorf("from %v to %v, want from %v", m.From, m.To, local)
						}
						relayed, err := p.Relay([]byte(test.old), []byte(test.new))
						must(t, err)
						nothing(t, p)
						if test.want == "" {
							nothing(t, s)
							return
						}
						if string(relayed.Sent) != test.want {
							t.Errorf("sent %q", relayed.Sent)
						}
						receive(t, s, socket.Now, test.want)
						nothing(t, s)
					})
				}
			})
		})
	}
}

// Two queues on the one socket, each waited for by a goroutine of its own: the
// one that reads the socket wakes the other.
func TestQueuesTogether(t *testing.T) {
	loopbackUp(t)
	lo := loopbacks[0]
	queueRule(t, nftables.ChainHookOutput, port(lo, 4001))
	queueRule(t, nftables.ChainHookOutput, port(lo, 4002))
	ends := map[uint16]socket.Endpoint{}
	clients := map[uint16]socket.Endpoint{}
	for _, n := range []uint16{4001, 4002} {
		ends[n], _ = open(t, script.Divert{Local: port(unspecified(lo), n)})
		clients[n], _ = connect(t, socketFor(datagram, script.Ends{Role: script.Client, Local: port(lo, 0), Remote: port(lo, n)}))
	}
	must(t, clients[4001].Send([]byte("Client\n"), 0))
	const rounds = 200
	done := make(chan error, 2)
	for n, e := range ends {
		go func() {
			for range rounds {
				m, err := e.Receive(soon())
				if err == nil && m.To.Port() != n {
					err = errors.New("a packet of the other queue")
				}
				if err == nil {
					_, err = e.Relay(nil, nil)
				}
				if err == nil {
					err = clients[n^3].Send([]byte("Client\n"), 0) // the other's turn
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range ends {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestQueueWait(t *testing.T) {
	loopbackUp(t)
	p, _ := open(t, script.Divert{Local: port(netip.IPv4Unspecified(), 4003)})
	start := time.Now()
	if _, err := p.Receive(start.Add(20 * time.Millisecond)); !errors.Is(err, socket.ErrNothing) {
		t.Error(err)
	}
	if d := time.Since(start); d < 20*time.Millisecond {
		t.Errorf("gave up after %v", d)
	}
}

// A queue serves one; closed, it can be had again, and what it held is gone.
func TestQueueTwice(t *testing.T) {
	loopbackUp(t)
	spec := script.Divert{Local: port(netip.IPv4Unspecified(), 4004)}
	first, _ := open(t, spec)
	if _, err := socket.Open(spec, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("second bind: %v", err)
	}
	lo := loopbacks[0]
	queueRule(t, nftables.ChainHookOutput, port(lo, 4004))
	s, _ := open(t, socketFor(datagram, script.Ends{Role: script.Server, Local: port(lo, 4004)}))
	c, _ := connect(t, socketFor(datagram, script.Ends{Role: script.Client, Local: port(lo, 0), Remote: port(lo, 4004)}))
	must(t, c.Send([]byte("Client\n"), 0))
	receive(t, first, socket.Now, "Client\n")
	must(t, first.Close())
	second, _ := open(t, spec)
	nothing(t, second)
	nothing(t, s)
	// Rest takes packets out of the way.
	must(t, c.Send([]byte("Client\n"), 0))
	must(t, c.Send([]byte("Client\n"), 0))
	leftover(t, second, 2)
	nothing(t, s)
}

// A queue that someone else has answers EPERM.
func TestQueueOfAnother(t *testing.T) {
	loopbackUp(t)
	other, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	must(t, err)
	defer unix.Close(other)
	bind := []byte{28, 0, 0, 0, 2, unix.NFNL_SUBSYS_QUEUE, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 1, 0, 0, 0}
	binary.BigEndian.PutUint16(bind[18:], 4005)
	must(t, unix.Sendto(other, bind, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	_, err = socket.Open(script.Divert{Local: port(netip.IPv4Unspecified(), 4005)}, nil)
	if !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}
