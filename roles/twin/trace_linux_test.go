package twin

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInHalves: flows whose events are lost when they are traced together are traced apart, in
// their order; another error is one, and so is a lost event of a single flow.
func TestInHalves(t *testing.T) {
	flows := make([]Flow, 7)
	for i := range flows {
		flows[i].ID = fmt.Sprint(i)
	}
	calls := 0
	names := func(most int, refused error) func([]Flow) ([]string, error) {
		return func(some []Flow) (ids []string, err error) {
			if calls++; len(some) > most {
				return nil, fmt.Errorf("read: %w", refused)
			}
			for _, f := range some {
				ids = append(ids, f.ID)
			}
			return ids, nil
		}
	}
	want := []string{"0", "1", "2", "3", "4", "5", "6"}
	for most, wantCalls := range map[int]int{7: 1, 2: 7, 1: 13} {
		calls = 0
		got, err := inHalves(flows, names(most, unix.ENOBUFS))
		if err != nil || !slices.Equal(got, want) || calls != wantCalls {
			t.Errorf("at most %d: %v, %v, %d calls, want %d", most, got, err, calls, wantCalls)
		}
	}
	if _, err := inHalves(flows, names(0, unix.ENOBUFS)); err == nil {
		t.Error("events that are always lost are no error")
	}
	calls = 0
	if _, err := inHalves(flows, names(2, unix.EPERM)); err == nil || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}
