package roles

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/roles/host"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/report"
)

// labHost is a host under test of a lab of its own.
func labHost(index int, name string) *tested {
	return &tested{name: name, index: index, reach: func(ctx context.Context) (*pair, error) { return reachLab(ctx, runFlags{}) }}
}

// playSeveral plays all targets on the hosts and gives what a person and a machine
// are told, and the exit status.
func playSeveral(t *testing.T, ctx context.Context, hosts []*tested, o runFlags) (text, said, machine string, status int) {
	t.Helper()
	var out, err, results bytes.Buffer
	names := make([]string, len(formats))
	names[0] = "-" // JSON
	files, failed := openReports(names, &results)
	if failed != nil {
		t.Fatal(failed)
	}
	c := &call{IO: IO{Out: &out, Err: &err, Getenv: func(string) string { return "" }}, version: "test"}
	status, failed = c.playHosts(ctx, hosts, matrix.Targets(), o, output{&out, report.Style{Width: 80}, files})
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
	hosts := []*tested{labHost(0, "one"), labHost(1, "two"),
		{name: "three", index: 2, reach: func(context.Context) (*pair, error) {
			return nil, hinted{errors.New("it does not answer"), "switch it on"}
		}},
		{name: "four", index: 3, reach: func(ctx context.Context) (*pair, error) {
			p, err := reachLab(ctx, runFlags{})
			if err == nil {
				p.local.Kill()
			}
			return p, err
		}},
	}
	text, said, machine, status := playSeveral(t, t.Context(), hosts, runFlags{count: 1, out: dir})
	for _, line := range []string{
		"PASS one/inet-args-tcp-to", "PASS two/inet6-reuse-rip-reply-to-reply-to",
		"ERROR three/inet-args-tcp-to (setup-failed): it does not answer",
		"one: 70 targets: 70 PASS", "two: 70 targets: 70 PASS", "three: 70 targets: 70 ERROR", "four: 70 targets: 70 ERROR",
		"280 targets on 4 hosts: 140 PASS, 140 ERROR in ",
	} {
		if !strings.Contains("\n"+text, "\n"+line) {
			t.Errorf("it did not print %q", line)
		}
	}
	if n := strings.Count(text, "ERROR four/"); n != strings.Count(text, "(agent-lost)") || n != 70 {
		t.Errorf("of the host whose agents were killed: %d lines", n)
	}
	if t.Failed() {
		t.Logf("it printed\n%s", text)
	}
	if status != exitError || !strings.Contains(said, "error: three: it does not answer\nhint: switch it on\n") || !strings.Contains(said, "error: four: ") {
		t.Errorf("exit status %d, it said\n%s", status, said)
	}
	var back struct {
		Hosts   []report.Host
		Targets []struct{ Name, Host, Verdict string }
	}
	if err := json.Unmarshal([]byte(machine), &back); err != nil || len(back.Hosts) != 4 || len(back.Targets) != 280 {
		t.Errorf("%v: %s", err, machine)
	}
	if log, err := os.ReadFile(filepath.Join(dir, "two", "inet-args-tcp-to", "local-client.log")); err != nil || !strings.Contains(string(log), "<<< Server") {
		t.Errorf("transcript %q: %v", log, err)
	}
}

// One host that can't be tested is the run's error, as ever.
func TestOneHostUnreached(t *testing.T) {
	hosts := []*tested{{reach: func(context.Context) (*pair, error) { return nil, errors.New("it does not answer") }}}
	var out bytes.Buffer
	c := &call{IO: IO{Out: &out, Err: &out, Getenv: func(string) string { return "" }}}
	status, err := c.playHosts(t.Context(), hosts, matrix.Targets(), runFlags{count: 1}, output{text: &out})
	if status != exitError || err == nil || err.Error() != "it does not answer" || out.Len() > 0 {
		t.Errorf("%d %v %q", status, err, &out)
	}
}

// An interrupt ends the run on all hosts, and what each found is told.
func TestSeveralHostsInterrupted(t *testing.T) {
	labtest.Need(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	timer := time.AfterFunc(2*time.Second, func() { cancel(errors.New("enough")) })
	defer timer.Stop()
	text, said, machine, status := playSeveral(t, ctx, []*tested{labHost(0, "one"), labHost(1, "two")}, runFlags{count: 1, duration: time.Minute})
	if status != exitError || !strings.Contains(text, "\ninterrupted after ") || strings.Contains(text, " 0 PASS") ||
		!strings.Contains(text, " on 2 hosts: ") || !strings.Contains(machine, `"interrupted":true`) || said != "" {
		t.Errorf("exit status %d, it printed\n%s%s", status, text, said)
	}
}

// Hosts that need a person are tried again with one, one after the other; LOCAL's password
// is asked for once.
func TestPeople(t *testing.T) {
	var asking, asked atomic.Int32
	p := newPeople(func(prompt string) (string, error) {
		if asking.Add(1) > 1 {
			t.Error("two questions at once")
		}
		time.Sleep(time.Millisecond)
		asking.Add(-1)
		asked.Add(1)
		return prompt, nil
	})
	hosts := []*tested{{index: 0}, {index: 1}, {index: 2}, {index: 3}}
	errs := each(hosts, func(h *tested) error {
		tries := 0
		_, err := p.reach(t.Context(), func(a asks) (*pair, error) {
			tries++
			switch {
			case h.index == 3:
				return nil, &host.Error{Reason: host.Unreachable}
			case h.index == 2:
				return &pair{}, nil
			case a.remote == nil:
				return nil, &host.Error{Reason: host.SudoPassword}
			}
			_, err := a.remote("remote")
			if password, localErr := a.local("local"); password != "local" || localErr != nil {
				t.Errorf("LOCAL's password: %q %v", password, localErr)
			}
			return &pair{}, err
		})
		if want := map[int]int{0: 2, 1: 2, 2: 1, 3: 1}[h.index]; tries != want {
			t.Errorf("host %d was tried %d times, want %d", h.index, tries, want)
		}
		return err
	})
	if errs[0] != nil || errs[1] != nil || errs[2] != nil || errs[3] == nil || asked.Load() != 3 {
		t.Errorf("%v, %d questions", errs, asked.Load())
	}
}
