package socket_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/roles/socket"
)

// deadlines are the two ways to wait. On loopback what was sent has arrived
// when send returns, so "now" finds it.
var deadlines = map[string]func() time.Time{
	"now":  func() time.Time { return socket.Now },
	"soon": soon,
}

// TestStream runs upstream's TCP cell: both write a line, both read it, the
// server closes first, the client after it has seen that.
func TestStream(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		for name, deadline := range deadlines {
			t.Run(name, func(t *testing.T) {
				s, slog := open(t, socketFor(stream, script.Ends{Role: script.Server, Local: port(lo, 5000),
					Reuse: true}))
				if err := s.Accept(socket.Now); !errors.Is(err, socket.ErrNothing) {
					t.Fatal(err)
				}
				c, clog := connect(t, socketFor(stream, script.Ends{Role: script.Client, Local: port(lo, 0),
					Remote: port(lo, 5000)}))
				arrived(t, func() error { return s.Accept(deadline()) })
				clientLocal, clientPeer := c.Names()
				serverLocal, serverPeer := s.Names()
				if clientLocal != serverPeer || clientPeer != serverLocal || serverLocal != port(lo, 5000) {
					t.Errorf("client %v %v, server %v %v", clientLocal, clientPeer, serverLocal, serverPeer)
				}
				if _, err := s.Receive(socket.Now); !errors.Is(err, socket.ErrNothing) {
					t.Fatal(err)
				}
				must(t, s.Send([]byte(script.ServerLine), 0))
				must(t, c.Send([]byte(script.ClientLine), 0))
				m := receive(t, s, deadline(), script.ClientLine)
				if m.From != clientLocal || m.To != serverLocal {
					t.Errorf("from %v to %v", m.From, m.To)
				}
				receive(t, c, deadline(), script.ServerLine)
				nothing(t, s)
				nothing(t, c)
				must(t, s.CloseConn())
				must(t, s.CloseConn())
				if _, err := c.Receive(soon()); err != io.EOF {
					t.Fatal(err)
				}
				must(t, c.Close())
				nothing(t, s)
				must(t, s.Close())
				logged(t, slog.String(), "stream-server")
				logged(t, clog.String(), "stream-client")
			})
		}
	})
}

// A line is put together from what arrives; what comes behind it stays.
func TestStreamLines(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		s, _ := open(t, socketFor(stream, script.Ends{Role: script.Server, Local: port(lo, 5001), Reuse: true}))
		c, _ := connect(t, socketFor(stream, script.Ends{Role: script.Client, Local: port(lo, 0),
			Remote: port(lo, 5001)}))
		late, _ := connect(t, socketFor(stream, script.Ends{Role: script.Client, Local: port(lo, 0),
			Remote: port(lo, 5001)}))
		must(t, s.Accept(soon()))
		must(t, c.Send([]byte("Cli"), 0))
		if m, err := s.Receive(socket.Now); !errors.Is(err, socket.ErrNothing) {
			t.Fatal(m, err)
		}
		must(t, c.Send([]byte("ent\nmore\nand"), 0))
		receive(t, s, socket.Now, "Client\n")
		must(t, c.Send([]byte(strings.Repeat("x", 3*socket.MaxData)), 0))
		must(t, c.CloseConn())
		// "more", "and" with the long line in pieces, and the other connection.
		all := leftover(t, s, 6)
		if string(all[0].Data) != "more\n" {
			t.Errorf("first %q", all[0].Data)
		}
		last := all[len(all)-1]
		if local, _ := late.Names(); last.From != local || last.Data != nil {
			t.Errorf("unaccepted connection: %v", last)
		}
		for _, m := range all {
			if len(m.Data) > socket.MaxData {
				t.Errorf("message of %d bytes", len(m.Data))
			}
		}
	})
}

func TestRefused(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		c, _ := open(t, socketFor(stream, script.Ends{Role: script.Client, Local: port(lo, 0), Remote: port(lo, 9)}))
		if err := errors.Join(c.Connect(), c.Connected(soon())); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("stream: %v", err)
		}
		if err := c.Connected(socket.Now); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("stream, asked again: %v", err)
		}
		nothing(t, c)
		d, _ := connect(t, socketFor(datagram, script.Ends{Role: script.Client, Local: port(lo, 0),
			Remote: port(lo, 9)}))
		must(t, d.Send([]byte(script.ClientLine), 0))
		if _, err := d.Receive(soon()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("datagram: %v", err)
		}
		if runtime.GOOS != "linux" {
			return
		}
		// An error that waits does not keep the next message from being sent.
		must(t, d.Send([]byte(script.ClientLine), 0))
		must(t, d.Send([]byte(script.ClientLine), 0))
	})
}

// serverPort: raw sockets have no port to bind.
func serverPort(k string, p uint16) uint16 {
	if k == datagram {
		return p
	}
	return 0
}

// TestPackets runs upstream's UDP and raw IP cells with an answer. With one
// loopback address for both, raw sockets hear their own packets too; Linux has
// a second one on IPv4.
func TestPackets(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		for _, kind := range []string{datagram, raw} {
			for name, deadline := range deadlines {
				t.Run(string(kind)+" "+name, func(t *testing.T) {
					from, to := lo, port(lo, serverPort(kind, 5002))
					if lo.Is4() && runtime.GOOS == "linux" {
						from = netip.MustParseAddr("127.0.0.2")
					}
					hearsItself := kind == raw && from == lo
					s, slog := open(t, socketFor(kind, script.Ends{Role: script.Server, Local: to}))
					if err := s.Send([]byte(script.ServerLine), 0); err == nil {
						t.Error("answered before there was a question")
					}
					c, clog := connect(t, socketFor(kind, script.Ends{Role: script.Client, Local: port(from, 0),
						Remote: to}))
					local, _ := c.Names()
					nothing(t, s)
					must(t, c.Send([]byte(script.ClientLine), 0))
					m := receive(t, s, deadline(), script.ClientLine)
					if m.From != local || kind == raw && m.To != to {
						t.Errorf("from %v to %v", m.From, m.To)
					}
					must(t, s.Send([]byte(script.ServerLine), 0))
					if hearsItself {
						receive(t, c, deadline(), script.ClientLine)
						receive(t, s, deadline(), script.ServerLine)
					}
					m = receive(t, c, deadline(), script.ServerLine)
					if m.From != to || kind == raw && m.To != local {
						t.Errorf("from %v to %v", m.From, m.To)
					}
					nothing(t, s)
					nothing(t, c)
					must(t, s.Close())
					must(t, c.Close())
					if !hearsItself {
						logged(t, slog.String(), string(kind)+"-server")
						if kind == raw && runtime.GOOS == "linux" {
							// Linux has no getpeername for raw sockets.
							clog = bytes.NewBufferString(strings.Replace(clog.String(), "\n",
								"\nconnect peer: 127.0.0.1 0\n", 1))
						}
						logged(t, clog.String(), string(kind)+"-client")
					}
				})
			}
		}
	})
}

// keepsRequests reports whether the kernel answers echo requests before raw sockets see
// them: the BSDs on IPv4, where a diverted one alone comes to the socket
// (sys/netinet/ip_icmp.c, icmp_input_if).
func keepsRequests(a netip.Addr) bool { return runtime.GOOS != "linux" && a.Is4() }

// TestRest: what comes twice is found.
func TestRest(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		for _, kind := range []string{datagram, raw, echo} {
			if kind == echo && keepsRequests(lo) {
				continue
			}
			to := port(lo, serverPort(kind, 5005))
			s, _ := open(t, socketFor(kind, script.Ends{Role: script.Server, Local: to}))
			c, _ := connect(t, withID(socketFor(kind, script.Ends{Role: script.Client, Local: port(lo, 0),
				Remote: to}), 9))
			for range 3 {
				must(t, c.Send([]byte(script.ClientLine), 1))
			}
			receive(t, s, socket.Now, script.ClientLine)
			leftover(t, s, 2)
		}
	})
}

// TestDestination: a server that listens for diverted datagrams tells what
// each was sent to.
func TestDestination(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		s, log := open(t, socketFor(datagram, script.Ends{Role: script.Server, Local: port(unspecified(lo), 5006),
			Diverted: true}))
		c, _ := connect(t, socketFor(datagram, script.Ends{Role: script.Client, Local: port(lo, 0),
			Remote: port(lo, 5006)}))
		must(t, c.Send([]byte(script.ClientLine), 0))
		if m := receive(t, s, socket.Now, script.ClientLine); m.To != port(lo, 5006) {
			t.Errorf("to %v", m.To)
		}
		if !strings.Contains(log.String(), "orig dst: "+lo.String()+" 5006\n") {
			t.Error(log)
		}
	})
}

// TestEcho: the server sees all requests, each client its own replies alone,
// which the kernel sends.
func TestEcho(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		types := [2]uint8{8, 0} // RFC 792
		if lo.Is6() {
			types = [2]uint8{128, 129} // RFC 4443
		}
		s, _ := open(t, socketFor(echo, script.Ends{Role: script.Server, Local: port(lo, 0)}))
		clients := map[uint16]socket.Endpoint{}
		for _, id := range []uint16{700, 701, 65535} {
			clients[id], _ = connect(t, withID(socketFor(echo,
				script.Ends{Role: script.Client, Local: port(lo, 0), Remote: port(lo, 0)}), id))
		}
		for id, c := range clients {
			// Two ids through one socket, of which the second is also another
			// client's first.
			for seq := range uint16(2) {
				must(t, c.Send([]byte(script.ClientLine), seq+1))
				want := script.EchoHeader{Type: types[0], ID: id + seq, Seq: seq + 1, Checksum: true}
				if !keepsRequests(lo) {
					m := receive(t, s, socket.Now, script.ClientLine)
					if *m.Echo != want || m.From != port(lo, 0) || m.To != port(lo, 0) {
						t.Errorf("request %+v from %v to %v, want %+v", *m.Echo, m.From, m.To, want)
					}
				}
				want.Type = types[1]
				if m := receive(t, c, soon(), script.ClientLine); *m.Echo != want {
					t.Errorf("reply %+v, want %+v", *m.Echo, want)
				}
			}
		}
		nothing(t, s)
		for _, c := range clients {
			nothing(t, c)
		}
	})
}

// TestOmitListen: with its ear left out a server runs on and hears nothing.
func TestOmitListen(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		for _, kind := range []string{stream, datagram, raw, echo} {
			spec := socketFor(kind, script.Ends{Role: script.Server, Local: port(lo, 5003),
				Omit: []script.Piece{script.Listen}})
			s, _ := open(t, spec)
			if local, _ := s.Names(); local.Addr() != lo {
				t.Errorf("%s: name %v", kind, local)
			}
			if err := s.Accept(socket.Now); !errors.Is(err, socket.ErrNothing) {
				t.Errorf("%s: accept: %v", kind, err)
			}
			if _, err := s.Receive(socket.Now); !errors.Is(err, socket.ErrNothing) {
				t.Errorf("%s: receive: %v", kind, err)
			}
			nothing(t, s)
			c, _ := open(t, socketFor(kind, script.Ends{Role: script.Client, Local: port(lo, 0),
				Remote: port(lo, 5003)}))
			must(t, c.Connect())
			// A socket that is bound and does not listen refuses on Linux and
			// says nothing on OpenBSD (sys/netinet/tcp_input.c, TCPS_CLOSED).
			err := c.Connected(time.Now().Add(50 * time.Millisecond))
			deaf := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, socket.ErrNothing)
			if kind == stream && !deaf || kind != stream && err != nil {
				t.Errorf("%s: connected: %v", kind, err)
			}
		}
	})
}

func TestWait(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		s, _ := open(t, socketFor(datagram, script.Ends{Role: script.Server, Local: port(lo, 5004)}))
		start := time.Now()
		if _, err := s.Receive(start.Add(30 * time.Millisecond)); !errors.Is(err, socket.ErrNothing) {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 30*time.Millisecond {
			t.Errorf("gave up after %v", d)
		}
		c, _ := connect(t, socketFor(datagram, script.Ends{Role: script.Client, Local: port(lo, 0),
			Remote: port(lo, 5004)}))
		sent := make(chan error)
		go func() {
			time.Sleep(20 * time.Millisecond)
			sent <- c.Send([]byte(script.ClientLine), 0)
		}()
		receive(t, s, soon(), script.ClientLine)
		must(t, <-sent)
	})
}

func TestBadSpec(t *testing.T) {
	good := script.Ends{Role: script.Client, Local: port(loopbacks[0], 0), Remote: port(loopbacks[0], 1)}
	bad := map[string]script.Socket{
		"divert, no address": script.Divert{},
		"divert, piece":      script.Divert{Local: port(netip.IPv4Unspecified(), 1), Omit: []script.Piece{"hat"}},
		"divert, queue":      script.Divert{Local: port(netip.IPv4Unspecified(), 1), Queue: script.MaxQueue + 1},
		"divert, write to zone": script.Divert{Local: port(netip.IPv4Unspecified(), 1),
			WriteTo: netip.MustParseAddr("fe80::1%lo")},
	}
	for name, change := range map[string]func(*script.Ends){
		"role":     func(s *script.Ends) { s.Role = "king" },
		"local":    func(s *script.Ends) { s.Local = netip.AddrPort{} },
		"remote":   func(s *script.Ends) { s.Remote = netip.AddrPort{} },
		"families": func(s *script.Ends) { s.Remote = port(loopbacks[1], 1) },
		"mapped":   func(s *script.Ends) { s.Local = netip.MustParseAddrPort("[::ffff:127.0.0.1]:0") },
		"zone":     func(s *script.Ends) { s.Local = netip.MustParseAddrPort("[fe80::1%lo]:0") },
		"piece":    func(s *script.Ends) { s.Omit = []script.Piece{"hat"} },
	} {
		for kind := range protocols {
			s := good
			change(&s)
			bad[kind+", "+name] = socketFor(kind, s)
		}
	}
	for name, s := range bad {
		if e, err := socket.Open(s, nil); err == nil {
			e.Close()
			t.Errorf("%s: %+v was opened", name, s)
		}
	}
}
