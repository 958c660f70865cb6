package matrix

import (
	"context"
	"errors"
	"testing"
)

// What a cell finds once the run is stopped accuses no one.
func TestStopped(t *testing.T) {
	stopped, stop := context.WithCancelCause(t.Context())
	stop(errors.New("interrupt"))
	for _, c := range []struct {
		name        string
		err         error
		going, then string
	}{
		{"a pass", nil, "PASS", "PASS"},
		{"an accusation", failed(NotDelivered, "nothing arrived"), "FAIL not-delivered", "interrupt"},
		{"a trouble", broken(SocketFailed, "in use"), "ERROR socket-failed", "interrupt"},
		{"a port in use", &portTakenError{}, "again", "interrupt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := verdictOf((&runner{ctx: t.Context()}).unlessStopped(c.err)); got != c.going {
				t.Errorf("while the run goes on: %s, want %s", got, c.going)
			}
			if got := verdictOf((&runner{ctx: stopped}).unlessStopped(c.err)); got != c.then {
				t.Errorf("when it is stopped: %s, want %s", got, c.then)
			}
		})
	}
}
