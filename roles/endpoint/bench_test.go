package endpoint_test

import (
	"testing"

	"pfdivert/roles/endpoint"
)

// benchmark opens both ends, exchanges one message and closes them: what the
// sockets of a cell cost.
func benchmark(b *testing.B, kind endpoint.Kind) {
	loopbackUp(b)
	for _, lo := range loopbacks {
		b.Run(lo.String(), func(b *testing.B) {
			b.ReportAllocs()
			to := port(lo, 5200)
			if kind != endpoint.Stream {
				to = port(lo, serverPort(kind, 5200))
			}
			for b.Loop() {
				s, err := endpoint.Open(endpoint.Spec{Kind: kind, Role: endpoint.Server, Local: to, Diverted: true, Reuse: true}, nil)
				must(b, err)
				c, err := endpoint.Open(endpoint.Spec{Kind: kind, Role: endpoint.Client, Local: port(lo, 0), Remote: to}, nil)
				must(b, err)
				must(b, c.Connect())
				must(b, c.Connected(endpoint.Now))
				if kind == endpoint.Stream {
					must(b, s.Accept(endpoint.Now))
				}
				must(b, c.Send([]byte(endpoint.ClientLine), 1))
				receive(b, s, endpoint.Now, endpoint.ClientLine)
				must(b, s.Close())
				must(b, c.Close())
			}
		})
	}
}

func BenchmarkStream(b *testing.B)   { benchmark(b, endpoint.Stream) }
func BenchmarkDatagram(b *testing.B) { benchmark(b, endpoint.Datagram) }
func BenchmarkRaw(b *testing.B)      { benchmark(b, endpoint.RawIP) }
func BenchmarkEcho(b *testing.B)     { benchmark(b, endpoint.Echo) }

// BenchmarkQueue binds and unbinds a divert port.
func BenchmarkQueue(b *testing.B) {
	loopbackUp(b)
	for b.Loop() {
		e, err := endpoint.Open(endpoint.Spec{Kind: endpoint.Divert, Role: endpoint.Packet, Local: port(unspecified(loopbacks[0]), 666)}, nil)
		must(b, err)
		must(b, e.Close())
	}
}

// BenchmarkTCPState asks after a socket that is not there.
func BenchmarkTCPState(b *testing.B) {
	loopbackUp(b)
	for b.Loop() {
		if _, err := endpoint.TCPState(b.Context(), port(loopbacks[0], 1), port(loopbacks[0], 2)); err == nil {
			b.Fatal("there is one")
		}
	}
}
