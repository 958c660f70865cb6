package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pfdivert/matrix"
)

// several is a run on three hosts, one of which was not reached.
func several(targets []string) (Run, []matrix.Result) {
	run := with(run26, func(r *Run) {
		r.Kernel, r.System, r.Targets = "", "", nil
		r.Local = &Machine{Name: "local", Kernel: "Linux 6.12.9", System: "linux/amd64"}
		r.Tested = []Machine{
			{Name: "openbsd77", Kernel: "OpenBSD 7.7", System: "openbsd/amd64"},
			{Name: "debian-with-a-long-name", Kernel: "Linux 6.12.9", System: "linux/arm64"},
			{Name: "gone"},
		}
	})
	var results []matrix.Result
	for _, h := range run.Tested {
		for i, name := range targets {
			r := matrix.Result{Name: OnHost(h.Name, name), Verdict: matrix.Pass, Seconds: 0.0012}
			switch {
			case h.Name == "gone":
				r.Verdict, r.Reason, r.Detail = matrix.Error, matrix.SetupFailed, "root@gone: it does not answer"
			case strings.Contains(name, "-rip-"):
				r.Verdict, r.Reason, r.Detail = matrix.XFail, matrix.NoReply, "As it is known to."
			case h.Name == "openbsd77" && i == 1:
				r.Verdict, r.Reason, r.Detail = matrix.Fail, matrix.NotDelivered, "The server accepted nothing."
			}
			run.Targets = append(run.Targets, r.Name)
			results = append(results, r)
		}
	}
	// As they arrive: the hosts' mixed.
	for i := range len(results) / 2 {
		results[i], results[len(results)-1-i] = results[len(results)-1-i], results[i]
	}
	return run, results
}

// TestSeveralHosts: one table of all hosts when it fits, else as many hosts beside each
// other as fit.
func TestSeveralHosts(t *testing.T) {
	run, results := several(args26)
	for name, style := range map[string]Style{
		"hosts-terminal.txt": {Terminal: true, Width: 80},
		"hosts-narrow.txt":   {Terminal: true, Width: 50},
		"hosts-colour.txt":   {Terminal: true, Width: 100, Colour: true},
		"hosts-plain.txt":    pipe,
	} {
		var b bytes.Buffer
		if err := WriteText(&b, style, run, results); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
		if style.Colour {
			continue
		}
		assertClean(t, b.String())
		for line := range strings.Lines(b.String()) {
			if style.Terminal && len(line) > style.Width+1 && !strings.Contains(line, " targets") {
				t.Errorf("%s: wider than %d: %q", name, style.Width, line)
			}
		}
	}
	run70, results70 := several(all70)
	var b bytes.Buffer
	if err := WriteText(&b, Style{Terminal: true, Width: 160}, run70, results70); err != nil {
		t.Fatal(err)
	}
	golden(t, "hosts-wide.txt", b.Bytes())
}

func TestSeveralHostsForMachines(t *testing.T) {
	run, results := several(args26[:6])
	stats := NewStats(run.Targets)
	for _, r := range results {
		for i := range 4 {
			if r.Verdict != matrix.Error || i == 0 {
				r.Seconds = float64(i+1) * time.Millisecond.Seconds()
				stats.Add(r)
			}
		}
	}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"hosts.json":           func(b *bytes.Buffer) error { return WriteJSON(b, run, results) },
		"hosts.regress":        func(b *bytes.Buffer) error { return WriteRegress(b, run, results, false) },
		"hosts-stats.json":     func(b *bytes.Buffer) error { return stats.WriteJSON(b, run) },
		"hosts-stats.txt":      func(b *bytes.Buffer) error { return stats.WriteText(b, onTerminal, run) },
		"hosts-no-result.json": func(b *bytes.Buffer) error { return WriteJSON(b, run, nil) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
	}
}
