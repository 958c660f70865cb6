package roles

import (
	"bytes"
	"errors"
	"fmt"
	"pfdivert/matrix/script"
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/roles/terminal"
)

// callMain runs a role in this process.
func callMain(args ...string) (status int, stdout, stderr string) {
	var out, err bytes.Buffer
	status = Main("test", args, IO{strings.NewReader(""), &out, &err, func(string) string { return "" }})
	return status, out.String(), err.String()
}

// Each role explains itself, with its exit status, by whichever way it is asked.
func TestHelp(t *testing.T) {
	for _, r := range all() {
		ways := [][]string{{"pfdivert", r.Name, "-h"}, {"pfdivert", r.Name, "--help"},
			{"/usr/bin/pfdivert", "help", r.Name}}
		if !r.Hidden {
			ways = append(ways, []string{"links/" + r.Name, "-h"}, []string{"pfdivert-" + r.Name, "-h"})
		}
		if r == &orchestratorRole {
			ways = append(ways, []string{"pfdivert", "orchestrator", "-h"},
				[]string{"pfdivert", "help", "orchestrator"})
		}
		if r == &helpRole {
			ways = ways[:2] // 'help help' and so on are the overview's concern
		}
		for _, args := range ways {
			status, out, err := callMain(args...)
			if status != exitOK || err != "" {
				t.Errorf("%q: exit status %d, %s", args, status, err)
			}
			if !strings.HasPrefix(out, "usage: pfdivert "+r.Name) || !strings.Contains(out, "Exit status: ") {
				t.Errorf("%q prints\n%s", args, out)
			}
			for line := range strings.Lines(out) {
				if len(line) > 110 && !strings.HasPrefix(line, "    ") {
					t.Errorf("%q: a line of %d letters: %s", args, len(line), line)
				}
			}
		}
	}
}

// Which role a command line picks, and what is left for it.
func TestPick(t *testing.T) {
	for _, c := range []struct {
		args string
		role *Role
		rest int
	}{
		{"pfdivert", &orchestratorRole, 0},
		{"pfdivert -json -", &orchestratorRole, 2},
		{"pfdivert run inet-*", &orchestratorRole, 1},
		{"pfdivert orchestrator", &orchestratorRole, 0},
		{"./server -bind ::1", &serverRole, 2},
		{"/usr/local/bin/pfdivert-server client", &serverRole, 1},
		{"pfdivert server", &serverRole, 0},
		{"pf-setup -n", &pfSetupRole, 1},
		{"agent", &orchestratorRole, 0},
		{"pfdivert agent -lab-remote", &agentRole, 1},
		{"./pfdivert-atf agent -lab-remote", &agentRole, 1},
		{"./pfdivert-atf -l", &atfRole, 1},
		{"pfdivert -h", &helpRole, 0},
		{"pfdivert -version", &versionRole, 0},
		{"pfdivert --version", &versionRole, 0},
		{"pfdivert -v", &orchestratorRole, 1},
	} {
		role, rest, err := pick(strings.Fields(c.args))
		if err != nil || role != c.role || len(rest) != c.rest {
			t.Errorf("%s: %v %q %v", c.args, role, rest, err)
		}
	}
	if role, _, err := pick(nil); role != &orchestratorRole || err != nil {
		t.Errorf("no arguments at all: %v, %v", role, err)
	}
}

// Errors come as error: and hint:, wherever the hint was made.
func TestTell(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("it broke"), "error: it broke\n"},
		{fmt.Errorf("run: %w", terminal.WithHint(errors.New("it broke"), "fix it")),
			"error: run: it broke\nhint: fix it\n"},
		{fmt.Errorf("local: %w", &script.Error{Code: "EPERM", Text: "not allowed", Hint: "be root"}),
			"error: local: not allowed\nhint: be root\n"},
		{&script.Error{Text: "it broke"}, "error: it broke\n"},
		{&matrix.NoTargetError{Pattern: "x", Nearest: "y"},
			"error: no target matches \"x\"\nhint: the nearest is y; 'pfdivert list' shows all\n"},
	} {
		var b bytes.Buffer
		terminal.PrintError(&b, c.err)
		if b.String() != c.want {
			t.Errorf("%q, want %q", b.String(), c.want)
		}
	}
}
