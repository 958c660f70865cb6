package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"pfdivert/matrix/script"
	"slices"
	"time"
)

// SendBurst sends the messages.
func SendBurst(e Endpoint, b script.Burst) error {
	if err := b.Validate(); err != nil {
		return err
	}
	for i := range b.Count {
		if b.Swap && i^1 < b.Count {
			i ^= 1
		}
		if err := e.Send(b.Message(b.First+i), 0); err != nil {
			return fmt.Errorf("message %d: %w", b.First+i, err)
		}
	}
	return nil
}

// ReceiveBurst takes what is there, without waiting, and compares it with the burst.
func ReceiveBurst(e Endpoint, b script.Burst) (script.Tally, error) {
	return takeBurst(e, b, func() error { return nil })
}

// RelayBurst has a packet endpoint take what is there and send each packet on, with the
// burst's line replaced by line.
func RelayBurst(e Endpoint, b script.Burst, line string) (script.Tally, error) {
	return takeBurst(e, b, func() error {
		_, err := e.Relay([]byte(b.Line), []byte(line))
		return err
	})
}

// takeBurst receives until nothing is left; each is called for each message.
func takeBurst(e Endpoint, b script.Burst, each func() error) (t script.Tally, err error) {
	if err := b.Validate(); err != nil {
		return t, err
	}
	for t.Count < b.Count+drainLimit { // more than that is wrong whatever it is
		m, err := e.Receive(Now)
		if errors.Is(err, ErrNothing) {
			break
		}
		if err != nil {
			return t, err
		}
		t.Count++
		t.Bytes += len(m.Data)
		switch {
		case t.Wrong != "":
		case t.Right < b.Count && bytes.Equal(m.Data, b.Message(b.First+t.Right)):
			t.Right++
		default:
			t.Wrong = b.Describe(m.Data)
		}
		if err := each(); err != nil {
			return t, err
		}
	}
	return t, nil
}

// RelayAll has a packet endpoint take what is there and send each packet on, with the first
// of the rewrites that applies. It gives each packet as it came and, in Sent, as it went.
func RelayAll(e Endpoint, rewrites []script.Rewrite) ([]script.Message, error) {
	return rest(func(time.Time) (script.Message, error) {
		m, err := e.Receive(Now)
		if err != nil {
			return m, err
		}
		var r script.Rewrite
		if i := slices.IndexFunc(rewrites, func(r script.Rewrite) bool { return bytes.Contains(m.Data, []byte(r.Old)) }); i >= 0 {
			r = rewrites[i]
		}
		return e.Relay([]byte(r.Old), []byte(r.New))
	})
}
