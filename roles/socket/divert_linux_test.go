package socket_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/socket"
)

// queueRule sends UDP packets to the address through the netfilter queue of the port's number, from
// a chain of iptables(8).
func queueRule(t testing.TB, chain string, to netip.AddrPort) {
	t.Helper()
	program := "iptables"
	if to.Addr().Is6() {
		program = "ip6tables"
	}
	labtest.Programs(t, program)
	iptables := func(do string) {
		t.Helper()
		number := fmt.Sprint(to.Port())
		out, err := exec.Command(program, "-w", "-t", "mangle", do, chain, "-p", "udp", "-d", to.Addr().String(),
			"--dport", number, "-j", "NFQUEUE", "--queue-num", number).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", program, do, err, out)
		}
	}
	iptables("-A")
	t.Cleanup(func() { iptables("-D") })
}

func TestRelay(t *testing.T) {
	for _, chain := range []string{"INPUT", "OUTPUT"} {
		t.Run(chain, func(t *testing.T) {
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
					{"checksum not fixed", []script.Piece{script.Checksum}, "Client", "Packet", ""},
				} {
					t.Run(test.name, func(t *testing.T) {
						queueRule(t, chain, port(lo, 4000))
						p, _ := open(t, script.Divert{Local: port(unspecified(lo), 4000), Omit: test.omit})
						s, _ := open(t, socketFor(datagram, script.Ends{Role: script.Server, Local: port(lo, 4000)}))
						c, _ := connect(t, socketFor(datagram,
							script.Ends{Role: script.Client, Local: port(lo, 0), Remote: port(lo, 4000)}))
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
	queueRule(t, "OUTPUT", port(lo, 4001))
	queueRule(t, "OUTPUT", port(lo, 4002))
	ends := map[uint16]socket.Endpoint{}
	clients := map[uint16]socket.Endpoint{}
	for _, n := range []uint16{4001, 4002} {
		ends[n], _ = open(t, script.Divert{Local: port(unspecified(lo), n)})
		clients[n], _ = connect(t, socketFor(datagram, script.Ends{Role: script.Client, Local: port(lo, 0),
			Remote: port(lo, n)}))
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
	queueRule(t, "OUTPUT", port(lo, 4004))
	s, _ := open(t, socketFor(datagram, script.Ends{Role: script.Server, Local: port(lo, 4004)}))
	c, _ := connect(t, socketFor(datagram, script.Ends{Role: script.Client, Local: port(lo, 0),
		Remote: port(lo, 4004)}))
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
	bind := []byte{28, 0, 0, 0, 2, unix.NFNL_SUBSYS_QUEUE, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 1, 0,
		0, 0}
	binary.BigEndian.PutUint16(bind[18:], 4005)
	must(t, unix.Sendto(other, bind, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	_, err = socket.Open(script.Divert{Local: port(netip.IPv4Unspecified(), 4005)}, nil)
	if !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}
