package endpoint

import (
	"net/netip"
	"pfdivert/matrix/script"
	"time"
)

// deaf is an endpoint whose ear was left out (Omit Listen or Reader): nothing arrives.
type deaf struct {
	Endpoint
	local, peer netip.AddrPort
}

// newDeaf closes the socket that e has bound. A stream server's stays: it
// does not listen, which is deaf enough, and its port stays taken.
func newDeaf(e Endpoint) (Endpoint, error) {
	d := deaf{Endpoint: e}
	d.local, d.peer = e.Names()
	if _, ok := e.(*stream); !ok {
		if err := e.Close(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d deaf) Names() (local, peer netip.AddrPort) { return d.local, d.peer }
func (d deaf) Accept(deadline time.Time) error     { return d.silence(deadline) }
func (d deaf) Rest() ([]script.Message, error)     { return nil, nil }
func (d deaf) Receive(deadline time.Time) (script.Message, error) {
	return script.Message{}, d.silence(deadline)
}

// silence waits for nothing.
func (d deaf) silence(deadline time.Time) error {
	time.Sleep(time.Until(deadline))
	return ErrNothing
}
