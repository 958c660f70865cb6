package socket_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/socket"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// loopbacks are the two families.
var loopbacks = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}

// eachLoopback runs the test on both families.
func eachLoopback(t *testing.T, f func(t *testing.T, lo netip.Addr)) {
	loopbackUp(t)
	for _, lo := range loopbacks {
		name := "inet"
		if lo.Is6() {
			name = "inet6"
		}
		t.Run(name, func(t *testing.T) { f(t, lo) })
	}
}

// The kinds of sockets that clients and servers have.
const (
	stream   = "stream"
	datagram = "datagram"
	raw      = "raw"
	echo     = "echo"
)

var protocols = map[string]pfconf.Proto{stream: pfconf.TCP, datagram: pfconf.UDP, raw: pfconf.Raw, echo: pfconf.ICMP}

// socket is a socket of a kind.
func socketFor(kind string, e script.Ends) script.Socket { return script.SocketOf(protocols[kind], e) }

// withID gives an echo client its id; other kinds have none.
func withID(s script.Socket, id uint16) script.Socket {
	if e, ok := s.(script.Echo); ok {
		e.ID = id
		return e
	}
	return s
}

// open opens an endpoint and closes it, twice, when the test ends.
func open(t testing.TB, s script.Socket) (socket.Endpoint, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	e, err := socket.Open(s, log)
	if errors.Is(err, socket.ErrUnsupported) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() {
		for range 2 {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return e, log
}

// connect opens a client and connects it.
func connect(t testing.TB, s script.Socket) (socket.Endpoint, *bytes.Buffer) {
	t.Helper()
	e, log := open(t, s)
	must(t, e.Connect())
	must(t, e.Connected(soon()))
	return e, log
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// soon is a deadline that is only reached when something is broken.
func soon() time.Time { return time.Now().Add(5 * time.Second) }

func port(a netip.Addr, p uint16) netip.AddrPort { return netip.AddrPortFrom(a, p) }

// arrived repeats f, which takes what is there, until it no longer answers
// ErrNothing: on a busy machine even loopback delivers a little later.
func arrived(t testing.TB, f func() error) {
	t.Helper()
	err := f()
	for end := soon(); errors.Is(err, socket.ErrNothing) && time.Now().Before(end); err = f() {
		time.Sleep(time.Millisecond)
	}
	must(t, err)
}

// receive takes a message and checks its payload.
func receive(t testing.TB, e socket.Endpoint, deadline time.Time, want string) (m script.Message) {
	t.Helper()
	arrived(t, func() (err error) {
		m, err = e.Receive(deadline)
		return err
	})
	if string(m.Data) != want {
		t.Fatalf("received %q, want %q", m.Data, want)
	}
	return m
}

// leftover takes the rest, of which there must be n messages.
func leftover(t testing.TB, e socket.Endpoint, n int) (all []script.Message) {
	t.Helper()
	arrived(t, func() error {
		more, err := e.Rest()
		all = append(all, more...)
		if err == nil && len(all) < n {
			err = socket.ErrNothing
		}
		return err
	})
	if len(all) != n {
		t.Fatalf("%d messages left, want %d: %v", len(all), n, all)
	}
	return all
}

// nothing checks that nothing waits on the endpoint.
func nothing(t testing.TB, e socket.Endpoint) {
	t.Helper()
	if m, err := e.Rest(); err != nil || len(m) > 0 {
		t.Fatalf("still there: %v %v", m, err)
	}
}

// unspecified is the address of the family that stands for all.
func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
