package matrix

import (
	"context"
	"testing"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// lateHost answers whether a client is connected, which it is when it has waited.
type lateHost struct {
	script.Host
	never bool
	code  string // of the first answer
	asked []script.Step
}

func (h *lateHost) Script(_ context.Context, s script.Script) ([]script.Outcome, error) {
	h.asked = append(h.asked, s.Steps...)
	out := make([]script.Outcome, len(s.Steps))
	for i, st := range s.Steps {
		if c := st.(script.Connected); h.never || c.Wait == 0 {
			out[i].Err = &script.Error{Code: h.code, Text: "not answered"}
		}
	}
	return out, nil
}

// A connection that TCP gave up, or that is answered late on a busy machine, is not the kernel's
// fault; one that never
// is, or that an idle machine does not answer, is.
func TestUnlessAnswered(t *testing.T) {
	for _, c := range []struct {
		name   string
		took   time.Duration
		never  bool
		code   string
		reason string
		want   string
		again  bool // it is asked once more
	}{
		{"answered late", 2 * busyAfter, false, script.CodeNothing, NotDelivered, "ERROR timed-out", true},
		{"never answered", 2 * busyAfter, true, script.CodeNothing, NotDelivered, "FAIL not-delivered", true},
		{"an idle machine", 0, false, script.CodeNothing, NotDelivered, "FAIL not-delivered", false},
		{"another failure", 2 * busyAfter, false, script.CodeNothing, WrongData, "FAIL wrong-data", false},
		{"TCP gave up", 0, false, "ETIMEDOUT", NotDelivered, "ERROR timed-out", false},
		{"refused", 2 * busyAfter, false, "ECONNREFUSED", NotDelivered, "FAIL not-delivered", false},
	} {
		host := &lateHost{never: c.never, code: c.code}
		p := &testCase{began: time.Now().Add(-c.took)}
		p.local = side{"local", host, "cell", pfconf.Inet, false, new(bool), map[string]string{}}
		p.remote = side{"remote", host, "cell", pfconf.Inet, false, new(bool), map[string]string{}}
		at := p.local.request()
		connected := at.connected("client")
		if err := at.run(t.Context()); err != nil || connected.Err == nil {
			t.Fatalf("%s: %v, %v", c.name, err, connected.Err)
		}
		err := p.unlessAnswered(t.Context(), failed(c.reason, "the connection was not answered"))
		if got := verdictOf(err); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if again := len(host.asked) == 2; again != c.again {
			t.Errorf("%s: asked %v", c.name, host.asked)
		}
	}
}

// That a socket is not in TIME_WAIT, or that its state is gone, is laid to the kernel only where
// the exchange was as short as on a machine that is idle, whatever looked for it.
func TestNotWaiting(t *testing.T) {
	none := stepResult{Outcome: script.Outcome{Err: fault(script.CodeNoSocket)}}
	judges := map[string]func(x *exchange) error{
		"a socket": func(x *exchange) error { return x.inTimeWait(waiting{&none}, "it closed first") },
		"a state":  func(x *exchange) error { return x.judgeTeardown(teardown{waiting: &stepResult{}}) },
		"a drop":   func(x *exchange) error { return x.judgeTeardown(teardown{dropped: &none}) },
	}
	for name, judge := range judges {
		for took, want := range map[time.Duration]string{
			0:             "FAIL state-missing",
			busyAfter / 2: "FAIL state-missing",
			busyAfter:     "ERROR timed-out",
		} {
			x := exchangeOf(t, "pf", "inet-args-tcp-to", false)
			x.began = time.Now().Add(-took)
			if got := verdictOf(judge(x)); got != want {
				t.Errorf("%s, after %v: %s, want %s", name, took, got, want)
			}
		}
	}
}
