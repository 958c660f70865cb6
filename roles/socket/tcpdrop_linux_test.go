package socket_test

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/roles/socket"
)

// TestDrop: a dropped connection is gone in either state, and the listener
// that it came from stays.
func TestDrop(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		ctx := t.Context()
		s, _ := open(t, socketFor(stream, script.Ends{Role: script.Server, Local: port(lo, 5100), Reuse: true}))
		state := func(local, remote netip.AddrPort, want string) {
			t.Helper()
			got, err := socket.TCPState(ctx, local, remote)
			if got != want || (want == "") != errors.Is(err, socket.ErrNoSocket) {
				t.Fatalf("%q %v, want %q", got, err, want)
			}
		}
		state(port(lo, 5100), port(lo, 1), "") // the kernel would find the listener
		if err := socket.Drop(ctx, port(lo, 5100), port(lo, 1)); !errors.Is(err, socket.ErrNoSocket) {
			t.Fatal(err)
		}

		c, _ := connect(t, socketFor(stream, script.Ends{Role: script.Client, Local: port(lo, 0),
			Remote: port(lo, 5100)}))
		must(t, s.Accept(soon()))
		local, remote := s.Names()
		state(local, remote, "ESTABLISHED")
		must(t, socket.Drop(ctx, local, remote))
		state(local, remote, "")
		if _, err := s.Receive(soon()); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("receive on the dropped socket: %v", err)
		}
		if _, err := c.Receive(soon()); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("receive on its peer: %v", err)
		}
		must(t, s.CloseConn())

		c, _ = connect(t, socketFor(stream, script.Ends{Role: script.Client, Local: port(lo, 0),
			Remote: port(lo, 5100)}))
		must(t, s.Accept(soon()))
		local, remote = s.Names()
		must(t, s.CloseConn())
		must(t, c.Close())
		state(local, remote, "TIME_WAIT")
		state(remote, local, "")
		must(t, socket.Drop(ctx, local, remote))
		state(local, remote, "")
		if err := socket.Drop(ctx, local, remote); !errors.Is(err, socket.ErrNoSocket) {
			t.Errorf("dropped twice: %v", err)
		}
		if _, err := socket.TCPState(ctx, port(loopbacks[0], 1), port(loopbacks[1], 1)); err == nil ||
			errors.Is(err, socket.ErrNoSocket) {
			t.Errorf("two families: %v", err)
		}
	})
}

// TestErrors: the client's error queue tells who refused.
func TestErrors(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		want := "ICMP type 3 code 3 from 127.0.0.1: connection refused"
		if lo.Is6() {
			want = "ICMPv6 type 1 code 4 from ::1: connection refused"
		}
		c, _ := connect(t, socketFor(datagram, script.Ends{Role: script.Client, Local: port(lo, 0),
			Remote: port(lo, 9)}))
		must(t, c.Send([]byte(script.ClientLine), 0))
		arrived(t, func() error {
			got := strings.Join(c.Errors(), "\n")
			if got == "" {
				return socket.ErrNothing
			}
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
			return nil
		})
		must(t, c.Send([]byte(script.ClientLine), 0))
		if _, err := c.Receive(soon()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		if got := strings.Join(c.Errors(), "\n"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got := c.Errors(); len(got) > 0 {
			t.Error(got)
		}
	})
}

// TestBindany: a foreign address can be bound with the option and not without.
func TestBindany(t *testing.T) {
	eachLoopback(t, func(t *testing.T, lo netip.Addr) {
		foreign := netip.MustParseAddr("192.0.2.9")
		if lo.Is6() {
			foreign = netip.MustParseAddr("2001:db8::9")
		}
		for _, kind := range []string{stream, datagram, raw, echo} {
			spec := script.Ends{Role: script.Client, Local: port(foreign, 0), Remote: port(lo, 5101), Bindany: true}
			c, _ := open(t, withID(socketFor(kind, spec), 3))
			if kind == datagram {
				s, _ := open(t, socketFor(kind, script.Ends{Role: script.Server, Local: spec.Remote}))
				must(t, c.Connect())
				must(t, c.Send([]byte(script.ClientLine), 1))
				if m := receive(t, s, socket.Now, script.ClientLine); m.From.Addr() != foreign {
					t.Errorf("%s: from %v", kind, m.From)
				}
			}
			if local, _ := c.Names(); kind == datagram && local.Addr() != foreign {
				t.Errorf("%s: name %v", kind, local)
			}
			spec.Omit = []script.Piece{script.Transparent}
			if e, err := socket.Open(withID(socketFor(kind, spec), 3), nil); !errors.Is(err, syscall.EADDRNOTAVAIL) {
				t.Errorf("%s without bindany: %v %v", kind, e, err)
			}
			spec.Omit, spec.Bindany = nil, false
			if e, err := socket.Open(withID(socketFor(kind, spec), 3), nil); !errors.Is(err, syscall.EADDRNOTAVAIL) {
				t.Errorf("%s without bindany: %v %v", kind, e, err)
			}
		}
	})
}
