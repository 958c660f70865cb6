package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"pfdivert/matrix"
	"pfdivert/matrix/explain"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// The names of the suite's targets.
var (
	argsKinds = strings.Fields(`tcp-to tcp-reply udp-to udp-reply udp-reply-to rip-to rip-reply rip-reply-to
		icmp-to icmp-reply-to icmp-reply-reuse udp-packet-in udp-packet-out`)
	args26 = names("args", argsKinds)
	all70  = append(names("args", argsKinds), names("reuse", reuseKinds())...)
)

func reuseKinds() (kinds []string) {
	for _, proto := range []string{"tcp", "udp", "rip"} {
		modes := []string{"to", "reply", "reply-to"}
		if proto == "tcp" {
			modes = modes[:2]
		}
		for _, first := range modes {
			for _, second := range modes {
				kinds = append(kinds, proto+"-"+first+"-"+second)
			}
		}
	}
	return kinds
}

func names(group string, kinds []string) (names []string) {
	for _, family := range []string{"inet", "inet6"} {
		for _, kind := range kinds {
			names = append(names, family+"-"+group+"-"+kind)
		}
	}
	return names
}

func passes(names []string) (results []matrix.Result) {
	for i, name := range names {
		results = append(results, matrix.Result{Name: name, Verdict: matrix.Pass, Seconds: 0.0012 + float64(i)*1e-4})
	}
	return results
}

// mixed has every verdict, and one cause that took several targets down. The
// results are in the order of their arrival, not of the list.
func mixed() []matrix.Result {
	results := passes(args26)
	set := func(name string, v matrix.Verdict, reason, detail string) {
		for i := range results {
			if results[i].Name == name {
				results[i].Verdict, results[i].Reason, results[i].Detail = v, reason, detail
			}
		}
	}
	set("inet-args-tcp-to", matrix.Fail, "no-connection", "The server on REMOTE accepted nothing: the SYN from 10.192.0.1:40001 to 10.208.0.1:5001 was counted by the rule and did not reach 127.0.0.1:5001.")
	for _, kind := range argsKinds[5:8] {
		set("inet6-args-"+kind, matrix.Skip, "no-raw-divert",
			"This kernel diverts no raw packets: the probe's setsockopt(IPV6_TRANSPARENT) said ENOPROTOOPT.")
	}
	set("inet6-args-icmp-to", matrix.Error, "agent-lost", "The connection to the agent on REMOTE ended: EOF.")
	set("inet-args-icmp-reply-to", matrix.XFail, "known-rip-reply-to",
		"The state stayed, as OpenBSD 7.7 is known to do.")
	set("inet-args-udp-packet-in", matrix.XPass, "passed", "It passed although it was known to fail.")
	why := &explain.Explanation{
		Cause: "no-policy-rule", Expected: "a socket on REMOTE gets it", LastSeen: "REMOTE's rule matched it",
		Likely: "there is no policy rule: packets with mark 0x1 are not sent to table 100", Check: "ip rule",
		Mend: "ip rule add fwmark 0x1 lookup 100",
	}
	for i := range results {
		if results[i].Verdict == matrix.Fail || results[i].Verdict == matrix.Error {
			results[i].Explanation = why // of the second, the cause alone is told
		}
	}
	results[0], results[20] = results[20], results[0]
	return results
}

// oneCause has targets that failed for one cause, each with its own words.
func oneCause() []matrix.Result {
	results := passes(args26)
	for i := range results {
		if i%4 != 0 {
			continue
		}
		r := &results[i]
		r.Verdict, r.Reason, r.Detail = matrix.Fail, matrix.NotDelivered,
			fmt.Sprintf("remote server: nothing arrived from 10.192.0.%d", i)
		r.Explanation = &explain.Explanation{
			Cause: "no-policy-rule", Expected: fmt.Sprint("x", i), LastSeen: "REMOTE's rule matched it",
			Likely: "there is no policy rule", Check: "ip rule", Mend: "ip rule add fwmark 0x1 lookup 100",
		}
	}
	return results
}

// unclaimed has claims of which the kernel's manuals do not make n, for two reasons, and two that
// pass.
func unclaimed(n int) []matrix.Result {
	var kinds []string
	for i := range n/2 + 1 {
		kinds = append(kinds, fmt.Sprintf("claim-%d", i+1))
	}
	results := passes(names("divert", kinds))
	for i := range n {
		r := &results[i]
		r.Verdict, r.Reason = matrix.Skip, matrix.NotClaimed
		r.Detail = fmt.Sprintf("the manual does not say it: reason %d", i%2)
	}
	return results
}

// hostile is a result with everything that a terminal would obey.
var hostile = []matrix.Result{{
	Name: "inet-args-tcp-to", Verdict: matrix.Fail, Reason: "x\x1b]0;title\a",
	Detail: "read \"\x1b[2J\x9b31m\u009b31m\r\n\x00\u202egnp\u200b\U000e0001\" \x7f\xff é \\ <end>",
	Explanation: &explain.Explanation{Cause: "x\x1b[2J", Expected: "\x1b[2J", Likely: "a\u009b31m\nb",
		Check: "\x1b]0;title\a"},
	Seconds: 0.1,
}}

var (
	run26 = Run{Kernel: "Linux 6.12.9", System: "linux/amd64", Version: "v1.2-3-gabcdef",
		Started: time.Date(2026, 3, 4, 5, 6, 7, 891234567, time.UTC), Seconds: 0.0414159, Targets: args26}
	onTerminal = Style{Terminal: true, Live: true, Width: 80}
	pipe       = Style{Width: 80}
)

func with(run Run, change func(*Run)) Run {
	change(&run)
	return run
}

func TestText(t *testing.T) {
	colour := onTerminal
	colour.Colour = true
	narrow := onTerminal
	narrow.Width = 50
	run70 := with(run26, func(r *Run) { r.Targets = all70; r.Seconds = 0.1362; r.Seed = 4711 })
	listed := onTerminal
	listed.Claims = true
	claims := with(run26, func(r *Run) { r.Targets = nil })
	one := with(run26, func(r *Run) { r.Targets = args26[:1]; r.Seconds = 0.0031 })
	none := with(run26, func(r *Run) { r.Targets = nil; r.Seconds = 0 })
	interrupted := with(run26, func(r *Run) { r.Interrupted = true; r.Seconds = 75 })
	tests := []struct {
		name    string
		style   Style
		run     Run
		results []matrix.Result
	}{
		{"args-terminal.txt", onTerminal, run26, passes(args26)},
		{"args-plain.txt", pipe, run26, passes(args26)},
		{"all-terminal.txt", onTerminal, run70, passes(all70)},
		{"all-narrow.txt", narrow, run70, passes(all70)},
		{"mixed-terminal.txt", onTerminal, run26, mixed()},
		{"mixed-colour.txt", colour, run26, mixed()},
		{"mixed-narrow.txt", narrow, run26, mixed()},
		{"mixed-plain.txt", pipe, run26, mixed()},
		{"cause-terminal.txt", onTerminal, run26, oneCause()},
		{"cause-plain.txt", pipe, run26, oneCause()},
		{"one-terminal.txt", onTerminal, one, passes(args26[:1])},
		{"none-terminal.txt", onTerminal, none, nil},
		{"none-plain.txt", pipe, none, nil},
		{"interrupted-terminal.txt", onTerminal, interrupted, passes(args26[:13])},
		{"interrupted-plain.txt", pipe, interrupted, passes(args26[:13])},
		{"claims-terminal.txt", onTerminal, claims, unclaimed(48)},
		{"claims-listed.txt", listed, claims, unclaimed(3)},
		{"claims-one.txt", onTerminal, claims, unclaimed(1)},
		{"hostile-terminal.txt", colour, one, hostile},
		{"hostile-plain.txt", pipe, one, hostile},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteText(&b, test.style, test.run, test.results); err != nil {
				t.Fatal(err)
			}
			golden(t, test.name, b.Bytes())
			if !test.style.Colour {
				assertClean(t, b.String())
			}
			if !test.style.Terminal || test.style.Colour {
				return
			}
			for line := range strings.Lines(b.String()) {
				if utf8.RuneCountInString(line) > test.style.Width+1 && !strings.Contains(line, "26 targets") {
					t.Errorf("wider than %d: %q", test.style.Width, line)
				}
			}
		})
	}
}

// assertClean fails when text has a character that a terminal would obey.
func assertClean(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if printable(line) != line {
			t.Errorf("not printable: %q", line)
		}
	}
}

func TestRegress(t *testing.T) {
	for name, results := range map[string][]matrix.Result{"mixed.regress": mixed(), "hostile.regress": hostile} {
		var b bytes.Buffer
		if err := WriteRegress(&b, run26, results, false); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
		assertClean(t, b.String())
	}
}

// TestRegressAlone: of one target bsd.regress.mk prints the name itself, and FAILED for an exit
// status.
func TestRegressAlone(t *testing.T) {
	for _, r := range mixed() {
		run := run26
		run.Targets = []string{r.Name}
		var b bytes.Buffer
		if err := WriteRegress(&b, run, []matrix.Result{r}, true); err != nil {
			t.Fatal(err)
		}
		last := map[matrix.Verdict]string{matrix.XFail: "EXPECTED_FAIL\n", matrix.Skip: "SKIPPED\n"}[r.Verdict]
		text := b.String()
		framed := strings.Contains(text, "====") || strings.Contains(text, "\nFAILED")
		if framed || (r.Verdict == matrix.Pass) != (text == "") || !strings.HasSuffix(text, last) {
			t.Errorf("%v: %q", r.Verdict, text)
		}
	}
}

func TestJSON(t *testing.T) {
	withHosts := with(run26, func(r *Run) {
		r.Hosts = []Machine{{Name: "local", Kernel: "Linux 6.1", System: "linux/amd64"},
			{Name: "remote", Address: "10.1.1.2", Kernel: "Linux 6.12.9", System: "linux/amd64"}}
	})
	interrupted := with(run26, func(r *Run) { r.Interrupted = true; r.Seed = 42 })
	tests := []struct {
		name    string
		run     Run
		results []matrix.Result
	}{
		{"mixed.json", withHosts, mixed()},
		{"none.json", with(run26, func(r *Run) { r.Targets = nil }), nil},
		{"interrupted.json", interrupted, passes(args26[:13])},
		{"hostile.json", run26, hostile},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteJSON(&b, test.run, test.results); err != nil {
				t.Fatal(err)
			}
			golden(t, test.name, b.Bytes())
			assertClean(t, b.String())
			var back struct {
				Run     Run
				Targets []matrix.Result
			}
			if err := json.Unmarshal(b.Bytes(), &back); err != nil {
				t.Fatal(err)
			}
			if back.Targets == nil || len(back.Targets) != len(test.results) {
				t.Errorf("%d targets, want %d", len(back.Targets), len(test.results))
			}
			for _, r := range back.Targets {
				if want := hostile[0]; r.Reason == want.Reason &&
					r.Detail != strings.ToValidUTF8(want.Detail, "\ufffd") {
					t.Errorf("detail came back as %q", r.Detail)
				}
			}
		})
	}
}

func TestStyle(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		cols int
		want Style
	}{
		{"terminal", map[string]string{"TERM": "xterm"}, 132,
			Style{Terminal: true, Colour: true, Live: true, Width: 132}},
		{"NO_COLOR", map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, 80,
			Style{Terminal: true, Live: true, Width: 80}},
		// no-color.org: "when present and not an empty string".
		{"empty NO_COLOR", map[string]string{"NO_COLOR": ""}, 80,
			Style{Terminal: true, Colour: true, Live: true, Width: 80}},
		{"dumb", map[string]string{"TERM": "dumb"}, 80,
			Style{Terminal: true, Width: 80}},
		{"tiny", nil, 3, Style{Terminal: true, Colour: true, Live: true, Width: minWidth}},
	}
	for _, test := range tests {
		got := terminalStyle(test.cols, func(key string) string { return test.env[key] })
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, w := range map[string]io.Writer{"file": file, "buffer": new(bytes.Buffer)} {
		if got, want := StyleOf(w, os.Getenv), (Style{Width: defaultWidth}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "0.0 ms", 0.00041: "0.4 ms", 0.00994: "9.9 ms", 0.00996: "10 ms", 0.0414: "41 ms", 0.9994: "999 ms",
		0.9996: "1.0 s", 3.14: "3.1 s", 59.94: "59.9 s", 59.96: "1 min 0 s", 312: "5 min 12 s", 3720: "1 h 2 min",
	} {
		if got := duration(seconds); got != want {
			t.Errorf("duration(%v) = %q, want %q", seconds, got, want)
		}
	}
}

type badWriter struct{}

func (badWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestWriteErrors: a report that could not be written is an error.
func TestWriteErrors(t *testing.T) {
	stats := NewStats(nil)
	for name, err := range map[string]error{
		"text":       WriteText(badWriter{}, pipe, run26, nil),
		"json":       WriteJSON(badWriter{}, run26, nil),
		"regress":    WriteRegress(badWriter{}, run26, mixed(), false),
		"stats text": stats.WriteText(badWriter{}, pipe, run26),
		"stats json": stats.WriteJSON(badWriter{}, run26),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
