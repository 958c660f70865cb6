package socket

import (
	"errors"
	"pfdivert/matrix/script"
	"slices"
	"strings"
	"testing"
	"time"
)

// pipe is an endpoint that receives what is sent to it, and relays into sent.
type pipe struct {
	Endpoint
	waiting [][]byte
	sent    []string
}

func (p *pipe) Send(b []byte, _ uint16) error { p.waiting = append(p.waiting, b); return nil }

func (p *pipe) Receive(time.Time) (script.Message, error) {
	if len(p.waiting) == 0 {
		return script.Message{}, ErrNothing
	}
	b := p.waiting[0]
	p.waiting = p.waiting[1:]
	return script.Message{Data: b}, nil
}

func (p *pipe) Relay(old, new []byte) (script.Message, error) {
	p.sent = append(p.sent, string(old)+" "+string(new))
	return script.Message{}, nil
}

func TestBurst(t *testing.T) {
	burst := script.Burst{First: 40, Count: 5, Size: 30, Line: script.ClientLine}
	whole := script.Tally{Count: 5, Bytes: 150, Right: 5}
	for name, c := range map[string]struct {
		change func(*pipe)
		want   script.Tally
		wrong  string
	}{
		"all":       {func(*pipe) {}, whole, ""},
		"none":      {func(p *pipe) { p.waiting = nil }, script.Tally{}, ""},
		"one short": {func(p *pipe) { p.waiting = p.waiting[:4] }, script.Tally{Count: 4, Bytes: 120, Right: 4}, ""},
		"a hole": {func(p *pipe) { p.waiting = slices.Delete(p.waiting, 1, 2) },
			script.Tally{Count: 4, Bytes: 120, Right: 1}, "number 42"},
		"turned round": {func(p *pipe) { slices.Reverse(p.waiting[3:]) }, script.Tally{Count: 5, Bytes: 150, Right: 3},
			"number 44"},
		"twice": {func(p *pipe) { p.waiting = append(p.waiting, p.waiting[4]) },
			script.Tally{Count: 6, Bytes: 180, Right: 5}, "number 44"},
		"cut": {func(p *pipe) { p.waiting[0] = p.waiting[0][:9] },
			script.Tally{Count: 5, Bytes: 129, Right: 0}, "9 bytes"},
		"one bit": {func(p *pipe) { p.waiting[2][29] ^= 1 }, script.Tally{Count: 5, Bytes: 150, Right: 2},
			"number 42"},
	} {
		p := &pipe{}
		if err := SendBurst(p, burst); err != nil {
			t.Fatal(err)
		}
		c.change(p)
		got, err := RelayBurst(p, burst, script.PacketLine)
		if !strings.Contains(got.Wrong, c.wrong) || (got.Wrong == "") != (c.wrong == "") {
			t.Errorf("%s: wrong is %q", name, got.Wrong)
		}
		got.Wrong = ""
		if err != nil || got != c.want || len(p.sent) != got.Count {
			t.Errorf("%s: %+v, %v, %d relayed", name, got, err, len(p.sent))
		}
	}

	swapped := burst
	swapped.Swap = true
	p := &pipe{}
	if err := SendBurst(p, swapped); err != nil {
		t.Fatal(err)
	}
	if got, err := ReceiveBurst(p, burst); err != nil || got.Count != 5 || got.Right != 0 || got.Wrong == "" {
		t.Errorf("out of order: %+v %v", got, err)
	}
}

// A burst that another host sends is bounded, and ends at the first error.
func TestBurstBounds(t *testing.T) {
	for _, b := range []script.Burst{
		{}, {Count: 1, Size: 10, Line: script.ClientLine}, {Count: 1, Size: script.MaxPacket + 1},
		{Count: script.MaxBurst + 1, Size: 20},
		{Count: 1, Size: 20, First: -1}, {Count: 1, Size: 20, First: 1 << 30},
	} {
		p := &pipe{}
		if err := SendBurst(p, b); err == nil || len(p.waiting) > 0 {
			t.Errorf("%+v was sent: %v", b, err)
		}
		if _, err := ReceiveBurst(p, b); err == nil {
			t.Errorf("%+v was received", b)
		}
	}
	d := deaf{Endpoint: &pipe{waiting: [][]byte{{1}}}}
	if got, err := ReceiveBurst(d, script.Burst{Count: 1, Size: 20}); err != nil || got.Count != 0 {
		t.Errorf("%+v %v", got, err)
	}
	if err := SendBurst(refuser{}, script.Burst{Count: 2, Size: 20}); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

type refuser struct{ Endpoint }

func (refuser) Send([]byte, uint16) error { return ErrUnsupported }

func TestRelayAll(t *testing.T) {
	p := &pipe{waiting: [][]byte{[]byte("a Client\n"), []byte("nothing"), []byte("Server\nClient\n")}}
	got, err := RelayAll(p, []script.Rewrite{{Old: script.ClientLine, New: script.PacketLine},
		{Old: script.ServerLine, New: "Answer\n"}})
	want := []string{"Client\n Packet\n", " ", "Client\n Packet\n"}
	if err != nil || len(got) != 3 || !slices.Equal(p.sent, want) {
		t.Errorf("%d relayed, %v: %q, want %q", len(got), err, p.sent, want)
	}
}
