package socket

import (
	"errors"
	"testing"
	"time"

	"pfdivert/matrix/script"
)

// late is an endpoint whose message comes only to those who wait.
type late struct {
	pipe
	err error
}

func (l *late) Receive(deadline time.Time) (script.Message, error) {
	switch {
	case l.err != nil:
		return script.Message{}, l.err
	case deadline.Before(time.Now()):
		return script.Message{}, ErrNothing
	}
	return l.pipe.Receive(deadline)
}

func (l *late) Rest() ([]script.Message, error) { return rest(l.pipe.Receive) }
func (l *late) Errors() []string                { return nil }

// What no fence waits for, a pipe's packet for example, is waited for: the first message, and those
// behind it are taken.
func TestRestWaits(t *testing.T) {
	l := &late{pipe: pipe{waiting: [][]byte{[]byte("first"), []byte("second")}}}
	out, err := Do(l, script.Rest{Wait: time.Minute})
	if err != nil || len(out.Messages) != 2 || string(out.Messages[0].Data) != "first" {
		t.Errorf("%+v %v", out, err)
	}
	out, err = Do(l, script.Rest{Wait: time.Minute})
	if err != nil || len(out.Messages) != 0 {
		t.Errorf("nothing came: %+v %v", out, err)
	}
	l.waiting = [][]byte{[]byte("third")}
	if out, err := Do(l, script.Rest{}); err != nil || len(out.Messages) != 1 {
		t.Errorf("without waiting: %+v %v", out, err)
	}
	l.err = errors.New("broken")
	if _, err := Do(l, script.Rest{Wait: time.Minute}); err == nil {
		t.Error("a socket that is broken")
	}
	if end := time.Until(until(time.Hour)); end > longestWait {
		t.Errorf("it would wait %v", end)
	}
}
