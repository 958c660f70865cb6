package matrix

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The list of targets with what each proves: names and order are those of OpenBSD's
// regress/sys/net/pf_divert/Makefile.
func TestTargets(t *testing.T) {
	var b strings.Builder
	seen := map[string]bool{}
	for _, target := range Targets() {
		fmt.Fprintf(&b, "%s\t%s\n", target.Name, target.Proves())
		if seen[target.Name] {
			t.Errorf("%s is there twice", target.Name)
		}
		seen[target.Name] = true
		if want := strings.SplitN(target.Name, "-", 2)[1]; target.Kind() != want {
			t.Errorf("%s is of kind %s", target.Name, target.Kind())
		}
	}
	const golden = "testdata/targets.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSelect(t *testing.T) {
	all := names(append(Targets(), Claims()...))
	suite, args := len(Targets()), 0
	for _, target := range Targets() {
		if !target.reuse() {
			args++
		}
	}
	for _, c := range []struct {
		patterns []string
		want     int
		first    string
	}{
		{nil, suite, "inet-args-tcp-to"},
		{[]string{"*"}, suite + len(Claims()), "inet-args-tcp-to"},
		{[]string{"inet6-a*", "inet6-reuse-*"}, suite / 2, "inet6-args-tcp-to"},
		{[]string{"inet6-*"}, suite / 2, "inet6-args-tcp-to"},
		{[]string{"inet-*-tcp-*"}, 6, "inet-args-tcp-to"},
		{[]string{"inet-[ar]*"}, suite / 2, "inet-args-tcp-to"},
		{[]string{"inet-*-tcp-*", "inet-*-tcp-out"}, 7, "inet-args-tcp-to"},
		{[]string{"*-divert-*", "*-natlook-*", "*-redirect-*", "*-queue-*", "inet-to-*", "inet6-to-*"}, len(Claims()),
			"inet-divert-no-listener-in"},
		{[]string{"inet6-divert-no-loop-in"}, 1, "inet6-divert-no-loop-in"},
		{[]string{"*-args-*"}, args, "inet-args-tcp-to"},
		{[]string{"inet?-reuse-tcp-*"}, 4, "inet6-reuse-tcp-to-to"},
		{[]string{"inet-args-tcp-[rt]*"}, 2, "inet-args-tcp-to"},
		{[]string{"run-inet-args-tcp-reply"}, 1, "inet-args-tcp-reply"},
		{[]string{"inet6-args-tcp-to", "inet-args-tcp-to", "inet-args-tcp-*"}, 3, "inet-args-tcp-to"},
	} {
		got, err := Select(c.patterns)
		if err != nil || len(got) != c.want || got[0].Name != c.first {
			t.Errorf("%q: %d targets, %v", c.patterns, len(got), err)
			continue
		}
		if !slices.IsSortedFunc(got, func(a, b Target) int {
			return slices.Index(all, a.Name) - slices.Index(all,
				b.Name)
		}) {
			t.Errorf("%q: not in the suite's order", c.patterns)
		}
	}
	for pattern, nearest := range map[string]string{
		"inet-args-tcp-too":       "inet-args-tcp-to",
		"inet-args-icmp-re-reuse": "inet-args-icmp-reply-reuse",
		"INET6-args-rip-reply-to": "inet6-args-rip-reply-to",
		"run-*-to":                "inet-args-tcp-to",
	} {
		_, err := Select([]string{"inet-args-tcp-to", pattern})
		var none *NoTargetError
		if !errors.As(err, &none) || none.Pattern != pattern || none.Hint() == "" {
			t.Errorf("%s: %v", pattern, err)
		} else if pattern != "run-*-to" && none.Nearest != nearest {
			t.Errorf("%s: the nearest is %s, want %s", pattern, none.Nearest, nearest)
		}
	}
	var bad *PatternError
	if _, err := Select([]string{"inet-[a"}); !errors.As(err, &bad) || !errors.Is(err, path.ErrBadPattern) ||
		bad.Hint() == "" {
		t.Errorf("a pattern with bad syntax: %v", err)
	}
}

// edits is a metric, and one edit counts one.
func TestEdits(t *testing.T) {
	word := rapid.StringOfN(rapid.RuneFrom([]rune("abc-")), 0, 8, -1)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "c")
		ab := edits(a, b)
		if (ab == 0) != (a == b) || ab != edits(b, a) || ab > max(len(a), len(b)) || ab < len(a)-len(b) ||
			ab > edits(a, c)+edits(c, b) {
			t.Errorf("from %q to %q are %d edits", a, b, ab)
		}
		at := rapid.IntRange(0, len(a)).Draw(t, "at")
		if n := edits(a, a[:at]+"x"+a[at:]); n != 1 {
			t.Errorf("one letter more in %q counts %d", a, n)
		}
	})
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		verdicts []Verdict
		want     int
	}{
		{nil, 0},
		{[]Verdict{Pass, XFail, Skip}, 0},
		{[]Verdict{Pass, Fail, Skip}, 1},
		{[]Verdict{XPass}, 1},
		{[]Verdict{Fail, Error, Pass}, 2},
		{[]Verdict{"PASSED"}, 2},
	} {
		if got := ExitStatus(c.verdicts...); got != c.want {
			t.Errorf("%v: exit status %d, want %d", c.verdicts, got, c.want)
		}
	}
}
