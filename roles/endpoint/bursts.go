package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"
)

// SendBurst sends the messages.
func SendBurst(e Endpoint, b Burst) error {
	if err := b.validate(); err != nil {
		return err
	}
	for i := range b.Count {
		if b.Swap && i^1 < b.Count {
			i ^= 1
		}
		if err := e.Send(b.message(b.First+i), 0); err != nil {
			return fmt.Errorf("message %d: %w", b.First+i, err)
		}
	}
	return nil
}

// ReceiveBurst takes what is there, without waiting, and compares it with the burst.
func ReceiveBurst(e Endpoint, b Burst) (Tally, error) {
	return takeBurst(e, b, func() error { return nil })
}

// RelayBurst has a packet endpoint take what is there and send each packet on, with the
// burst's line replaced by line.
func RelayBurst(e Endpoint, b Burst, line string) (Tally, error) {
	return takeBurst(e, b, func() error {
		_, err := e.Relay([]byte(b.Line), []byte(line))
		return err
	})
}

// takeBurst receives until nothing is left; each is called for each message.
func takeBurst(e Endpoint, b Burst, each func() error) (t Tally, err error) {
	if err := b.validate(); err != nil {
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
		case t.Right < b.Count && bytes.Equal(m.Data, b.message(b.First+t.Right)):
			t.Right++
		default:
			t.Wrong = b.describe(m.Data)
		}
		if err := each(); err != nil {
			return t, err
		}
	}
	return t, nil
}

// RelayAll has a packet endpoint take what is there and send each packet on, with the first
// of the rewrites that applies. It gives each packet as it came and, in Sent, as it went.
func RelayAll(e Endpoint, rewrites []Rewrite) ([]Message, error) {
	return rest(func(time.Time) (Message, error) {
		m, err := e.Receive(Now)
		if err != nil {
			return m, err
		}
		var r Rewrite
		if i := slices.IndexFunc(rewrites, func(r Rewrite) bool { return bytes.Contains(m.Data, []byte(r.Old)) }); i >= 0 {
			r = rewrites[i]
		}
		return e.Relay([]byte(r.Old), []byte(r.New))
	})
}
