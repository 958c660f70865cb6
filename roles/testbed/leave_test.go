package testbed

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pfdivert/roles/agent"
)

// slow is an agent that takes a time to put its host back.
type slow time.Duration

func (s slow) Bye(ctx context.Context) error {
	select {
	case <-time.After(time.Duration(s)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// TestLeave: an agent is waited for as long as it may take, and one that says nothing is told of
// with the time that it had.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if err := bye(t.Context(), "remote", slow(agent.UndoTimeout+time.Second)); err != nil {
			t.Error(err)
		}
		err := bye(t.Context(), "remote", slow(time.Hour))
		if err == nil || !strings.Contains(err.Error(), "remote: not everything was put back: it has not said within 40s") {
			t.Error(err)
		}
	})
}
