package testbed

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/roles/host"
)

// TestPrompter: hosts that need a person are tried again with one, one after the other, and LOCAL's
// password is asked for once.
func TestPrompter(t *testing.T) {
	var asking, asked atomic.Int32
	p := newPrompter(func(_ context.Context, prompt string) (string, error) {
		if asking.Add(1) > 1 {
			t.Error("two questions at once")
		}
		time.Sleep(time.Millisecond)
		asking.Add(-1)
		asked.Add(1)
		return prompt, nil
	})
	hosts := []*Testbed{{Index: 0}, {Index: 1}, {Index: 2}, {Index: 3}}
	errs := Each(hosts, func(h *Testbed) error {
		tries := 0
		_, err := p.reach(t.Context(), func(a asks) (*Pair, error) {
			tries++
			switch {
			case h.Index == 3:
				return nil, &host.Error{Reason: host.Unreachable}
			case h.Index == 2:
				return &Pair{}, nil
			case a.remote == nil:
				return nil, &host.Error{Reason: host.SudoPassword}
			}
			_, err := a.remote(t.Context(), "remote")
			if password, localErr := a.local(t.Context(), "local"); password != "local" || localErr != nil {
				t.Errorf("LOCAL's password: %q %v", password, localErr)
			}
			return &Pair{}, err
		})
		if want := map[int]int{0: 2, 1: 2, 2: 1, 3: 1}[h.Index]; tries != want {
			t.Errorf("host %d was tried %d times, want %d", h.Index, tries, want)
		}
		return err
	})
	if errs[0] != nil || errs[1] != nil || errs[2] != nil || errs[3] == nil || asked.Load() != 3 {
		t.Errorf("%v, %d questions", errs, asked.Load())
	}
}

// TestRemoteArgs: the routing domain reaches REMOTE's agent.
func TestRemoteArgs(t *testing.T) {
	if got := remoteArgs(Options{}); !slices.Equal(got, []string{"agent"}) {
		t.Errorf("without: %q", got)
	}
	if got := remoteArgs(Options{Domain: 2}); !slices.Equal(got, []string{"agent", "-rdomain", "2"}) {
		t.Errorf("with: %q", got)
	}
}

// FreeBSD's pf is on in a lab of the targets that are about it alone; elsewhere one lab has all.
func TestLabParts(t *testing.T) {
	for _, c := range []struct {
		system  string
		targets string
		parts   []string
	}{
		{"linux", "inet-divert-pf-packet-in inet-divert-rip-in",
			[]string{"inet-divert-pf-packet-in inet-divert-rip-in"}},
		{"freebsd", "inet-divert-pf-packet-in inet-divert-rip-in inet-natlook-tcp inet-args-tcp-to inet-divert-ipfw-pf-in",
			[]string{"inet-args-tcp-to inet-divert-rip-in",
				"inet-divert-pf-packet-in inet-divert-ipfw-pf-in inet-natlook-tcp"}},
		{"freebsd", "inet-divert-pf-tag-in inet-divert-pf-packet-in", []string{"inet-divert-pf-packet-in",
			"inet-divert-pf-tag-in"}},
		{"freebsd", "inet-args-tcp-to", []string{"inet-args-tcp-to"}},
		{"freebsd", "inet-natlook-udp", []string{"inet-natlook-udp"}},
	} {
		targets, err := matrix.Select(strings.Fields(c.targets))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, part := range LabParts(c.system, targets) {
			var names []string
			for _, target := range part {
				names = append(names, target.Name)
			}
			got = append(got, strings.Join(names, " "))
		}
		if !slices.Equal(got, c.parts) {
			t.Errorf("%s: %q, want %q", c.system, got, c.parts)
		}
	}
}
