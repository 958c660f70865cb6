package roles

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/report"
	"pfdivert/roles/terminal"
	"pfdivert/roles/testbed"
)

// labHost is a host under test of a lab of its own.
func labHost(index int, name string) *testbed.Testbed {
	return &testbed.Testbed{Name: name, Index: index,
		Dial: func(ctx context.Context) (*testbed.Pair, error) {
			return testbed.ReachLab(ctx, testbed.Options{})
		}}
}

// playSeveral runs all targets on the hosts and gives what a person and a machine
// are told, and the exit status.
func playSeveral(t *testing.T, ctx context.Context, hosts []*testbed.Testbed, o runFlags) (text, said, machine string,
	status int) {
	t.Helper()
	var out, err, results bytes.Buffer
	names := make([]string, len(report.Formats))
	names[0] = "-" // JSON
	files, failed := report.OpenFiles(names, &results)
	if failed != nil {
		t.Fatal(failed)
	}
	c := &call{IO: IO{Out: &out, Err: &err, Getenv: func(string) string { return "" }}, version: "test"}
	status, _, failed = c.runOn(ctx, hosts, matrix.Targets(), o, output{text: &out,
		style: report.Style{Width: 80}, files: files, progress: report.NewProgress(&err, false)})
	if failed != nil {
		t.Fatal(failed)
	}
	return out.String(), err.String(), results.String(), status
}

// Two hosts are tested at once; that a third can't be reached, and a fourth's agents
// end before they are asked for anything, is told and leaves the others alone.
func TestSeveralHosts(t *testing.T) {
	labtest.Need(t)
	dir := t.TempDir()
	hosts := []*testbed.Testbed{labHost(0, "one"), labHost(1, "two"),
		{Name: "three", Index: 2, Dial: func(context.Context) (*testbed.Pair, error) {
			return nil, terminal.WithHint(errors.New("it does not answer"), "switch it on")
		}},
		{Name: "four", Index: 3, Dial: func(ctx context.Context) (*testbed.Pair, error) {
			p, err := testbed.ReachLab(ctx, testbed.Options{})
			if err == nil {
				p.Local.Kill()
			}
			return p, err
		}},
	}
	text, said, machine, status := playSeveral(t, t.Context(), hosts, runFlags{count: 1, out: dir})
	each := len(matrix.Targets())
	for _, line := range []string{
		"PASS one/inet-args-tcp-to", "PASS two/inet6-reuse-rip-reply-to-reply-to",
		"ERROR three/inet-args-tcp-to (setup-failed): it does not answer",
		fmt.Sprintf("one: %d targets: %d PASS", each, each), fmt.Sprintf("two: %d targets: %d PASS", each, each),
		fmt.Sprintf("three: %d targets: %d ERROR", each, each), fmt.Sprintf("four: %d targets: %d ERROR", each, each),
		fmt.Sprintf("%d targets on 4 hosts: %d PASS, %d ERROR in ", 4*each, 2*each, 2*each),
	} {
		if !strings.Contains("\n"+text, "\n"+line) {
			t.Errorf("it did not print %q", line)
		}
	}
	if n := strings.Count(text, "ERROR four/"); n != strings.Count(text, "(agent-lost)") || n != each {
		t.Errorf("of the host whose agents were killed: %d lines", n)
	}
	if t.Failed() {
		t.Logf("it printed\n%s", text)
	}
	if status != exitError || !strings.Contains(said, "error: three: it does not answer\nhint: switch it on\n") ||
		!strings.Contains(said, "error: four: ") {
		t.Errorf("exit status %d, it said\n%s", status, said)
	}
	var back struct {
		Hosts   []report.Machine
		Targets []struct{ Name, Host, Verdict string }
	}
	err := json.Unmarshal([]byte(machine), &back)
	if err != nil || len(back.Hosts) != 4 || len(back.Targets) != 4*each {
		t.Errorf("%v: %s", err, machine)
	}
	if log, err := os.ReadFile(filepath.Join(dir, "two", "inet-args-tcp-to", "local-client.log")); err != nil ||
		!strings.Contains(string(log), "<<< Server") {
		t.Errorf("transcript %q: %v", log, err)
	}
}

// One host that can't be tested is the run's error, as ever.
func TestOneHostUnreached(t *testing.T) {
	hosts := []*testbed.Testbed{{Dial: func(context.Context) (*testbed.Pair, error) {
		return nil,
			errors.New("it does not answer")
	}}}
	var out bytes.Buffer
	c := &call{IO: IO{Out: &out, Err: &out, Getenv: func(string) string { return "" }}}
	status, _, err := c.runOn(t.Context(), hosts, matrix.Targets(), runFlags{count: 1}, output{text: &out})
	if status != exitError || err == nil || err.Error() != "it does not answer" || out.Len() > 0 {
		t.Errorf("%d %v %q", status, err, &out)
	}
}

// An interrupt ends the run on all hosts, and what each found is told.
func TestSeveralHostsInterrupted(t *testing.T) {
	labtest.Need(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	hosts := []*testbed.Testbed{labHost(0, "one"), labHost(1, "two")}
	reached := make(chan *testbed.Pair, len(hosts))
	for _, h := range hosts {
		dial := h.Dial
		h.Dial = func(ctx context.Context) (*testbed.Pair, error) {
			p, err := dial(ctx)
			if err == nil {
				reached <- p
			}
			return p, err
		}
	}
	go func() {
		defer cancel(errors.New("enough"))
		for range hosts {
			// The 70 that run at once need less, so some have ended.
			remote := (<-reached).Hosts.Remote
			for remote.Requests() < 2000 && !remote.Lost() {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	text, said, machine, status := playSeveral(t, ctx, hosts, runFlags{count: 1, duration: time.Minute})
	if status != exitError || !strings.Contains(text, "\ninterrupted after ") || strings.Contains(text, " 0 PASS") ||
		!strings.Contains(text, " on 2 hosts: ") || !strings.Contains(machine, `"interrupted":true`) || said != "" {
		t.Errorf("exit status %d, it printed\n%s%s", status, text, said)
	}
}

// TestNoLab: who can't be both hosts is told why, and what to do.
func TestNoLab(t *testing.T) {
	for _, c := range []struct {
		system string
		euid   int
		sudo   string
		why    string
	}{
		{"linux", 1000, "", ""},
		{"openbsd", 0, "", ""},
		{"openbsd", 1000, "doas", ""},
		{"openbsd", 1000, "", "set SUDO to doas"},
		{"freebsd", 0, "", ""},
		{"freebsd", 1001, "", "set SUDO to doas"},
		{"darwin", 0, "", "can't be both hosts"},
	} {
		why := noLab(c.system, c.euid, c.sudo)
		if (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s as %d, SUDO=%q: %q, want %q", c.system, c.euid, c.sudo, why, c.why)
		}
		if why == "" {
			continue
		}
		var text bytes.Buffer
		dir := t.TempDir()
		var names []string
		for _, f := range report.Formats {
			names = append(names, filepath.Join(dir, f.Flag))
		}
		files, err := report.OpenFiles(names, nil)
		if err != nil {
			t.Fatal(err)
		}
		status, err := (&call{version: "v1"}).skipRun(output{text: &text, files: files}, matrix.Targets(), runFlags{},
			why)
		if status != exitOK || err != nil || !strings.Contains(text.String(), why) ||
			!strings.HasSuffix(text.String(), "\nSKIPPED\n") {
			t.Errorf("%s: exit status %d, %v, %q", c.system, status, err, text.String())
		}
		// The run succeeded, so its reports are there, and say that nothing was run.
		for format, want := range map[string]string{
			"json": `"targets":[]}`, "tap": "\n1..0 # SKIP No remote host is given. ",
			"junit": `tests="0" failures="0"`, "html": "<dt>Skipped</dt>",
		} {
			got, err := os.ReadFile(filepath.Join(dir, format))
			if err != nil || !strings.Contains(string(got), want) ||
				!strings.Contains(string(got), "No remote host is given. ") {
				t.Errorf("%s: -%s: %v, %q", c.system, format, err, got)
			}
		}
		if past, err := new(call).readRun(filepath.Join(dir, "json")); err != nil || past.Run.Skipped == "" ||
			len(past.Summaries) != 0 {
			t.Errorf("%s: it is read as %+v, %v", c.system, past, err)
		}
	}
}

// Nonsense with -rdomain is refused at once.
func TestRdomain(t *testing.T) {
	for _, c := range []struct{ arg, want string }{
		{"-1", "-rdomain -1: there is no such routing domain\nhint: they go up to 255"},
		{"256", "-rdomain 256: there is no such routing domain"},
		{"x", "this is no number"},
		{"2", "this system has no routing domains\nhint: set REMOTE_SSH"}, // but OpenBSD
	} {
		if c.arg == "2" && !testbed.HasNamespaces {
			continue
		}
		status, out, err := callMain("pfdivert", "run", "-rdomain", c.arg, "inet-args-tcp-to")
		if status != exitError || !strings.Contains(err, c.want) {
			t.Errorf("-rdomain %s: exit status %d, %q, %q, want %q", c.arg, status, out, err, c.want)
		}
	}
}

// gone is a reader that went away.
type gone struct{}

var errGone = errors.New("broken pipe")

func (gone) Write([]byte) (int, error) { return 0, errGone }

// TestReportsBeforeText: that the text can't be written does not keep the run's files from it, and
// neither does a file that can't.
func TestReportsBeforeText(t *testing.T) {
	dir := t.TempDir()
	names := make([]string, len(report.Formats))
	for i, f := range report.Formats {
		names[i] = filepath.Join(dir, f.Flag)
	}
	names[0] = "-"
	files, err := report.OpenFiles(names, gone{})
	if err != nil {
		t.Fatal(err)
	}
	found := report.NewResults([]string{"inet-args-tcp-to"}, false)
	found.Add(matrix.Result{Name: "inet-args-tcp-to", Verdict: matrix.Pass})
	run := report.Run{Version: "v1", Targets: []string{"inet-args-tcp-to"}}
	err = new(call).report(run, found, nil, runFlags{out: filepath.Join(dir, "out")},
		output{text: gone{}, files: files})
	if !errors.Is(err, errGone) || !strings.Contains(err.Error(), "results, -json -: ") {
		t.Errorf("%v", err)
	}
	for _, name := range append(names[1:], filepath.Join(dir, "out", "inet-args-tcp-to", "verdict")) {
		if text, err := os.ReadFile(name); err != nil || !strings.Contains(string(text), "inet-args-tcp-to") {
			t.Errorf("%v, %q", err, text)
		}
	}
}
