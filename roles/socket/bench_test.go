package socket_test

import (
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/roles/socket"
)

// benchmark opens both ends, exchanges one message and closes them: what the
// sockets of a cell cost.
func benchmark(b *testing.B, kind string) {
	loopbackUp(b)
	for _, lo := range loopbacks {
		b.Run(lo.String(), func(b *testing.B) {
			b.ReportAllocs()
			to := port(lo, 5200)
			if kind != stream {
				to = port(lo, serverPort(kind, 5200))
			}
			for b.Loop() {
				s, err := socket.Open(socketFor(kind, script.Ends{Role: script.Server, Local: to, Diverted: true,
					Reuse: true}), nil)
				must(b, err)
				c, err := socket.Open(socketFor(kind, script.Ends{Role: script.Client, Local: port(lo, 0),
					Remote: to}), nil)
				must(b, err)
				must(b, c.Connect())
				must(b, c.Connected(socket.Now))
				if kind == stream {
					must(b, s.Accept(socket.Now))
				}
				must(b, c.Send([]byte(script.ClientLine), 1))
				receive(b, s, socket.Now, script.ClientLine)
				must(b, s.Close())
				must(b, c.Close())
			}
		})
	}
}

func BenchmarkStream(b *testing.B)   { benchmark(b, stream) }
func BenchmarkDatagram(b *testing.B) { benchmark(b, datagram) }
func BenchmarkRaw(b *testing.B)      { benchmark(b, raw) }
func BenchmarkEcho(b *testing.B)     { benchmark(b, echo) }

// BenchmarkQueue binds and unbinds a divert port.
func BenchmarkQueue(b *testing.B) {
	loopbackUp(b)
	for b.Loop() {
		e, err := socket.Open(script.Divert{Local: port(unspecified(loopbacks[0]), 666)}, nil)
		must(b, err)
		must(b, e.Close())
	}
}

// BenchmarkTCPState asks after a socket that is not there.
func BenchmarkTCPState(b *testing.B) {
	loopbackUp(b)
	for b.Loop() {
		if _, err := socket.TCPState(b.Context(), port(loopbacks[0], 1), port(loopbacks[0], 2)); err == nil {
			b.Fatal("there is one")
		}
	}
}
