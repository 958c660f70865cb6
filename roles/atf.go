package roles

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/roles/report"
	"pfdivert/roles/terminal"
	"pfdivert/roles/testbed"
)

var atfRole = Role{
	Name: "atf", Usage: "-l | [-r FILE] [-s DIR] [-v NAME=VALUE] TARGET[:cleanup]",
	Summary: "be a test program of kyua, as FreeBSD's tests are",
	Help: `-l lists the targets of the suite and the claims as test cases. Otherwise one is
run, and its result is written to FILE as one line: passed, failed, skipped,
expected_failure, or broken when it could not be tested. Output and errors are
for people.

-v REMOTE_SSH=root@host and the same with the other variables of 'pfdivert run'
take the place of the environment; other names are ignored. -s is what kyua
gives every test program, and does not matter. TARGET:cleanup undoes what a killed
run left.

  kyua test; kyua report-junit
  kyua -v test_suites.pfdivert.REMOTE_SSH=root@host test

Exit status: 0 when the result is passed, skipped or expected_failure, 1 when it
is failed or broken, 2 when there is no such target or the result can't be written.`,
	run: runATF,
}

// atfArgs are a test program's arguments (atf-test-program(1)).
type atfArgs struct {
	list   bool
	result string            // the file
	vars   map[string]string // of -v
	target string
	part   string // behind a colon: "cleanup"
}

// parseATF reads arguments as getopt(3) does: kyua writes an option and its value as one word.
func parseATF(args []string) (atfArgs, error) {
	a := atfArgs{vars: map[string]string{}}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" {
		option, value := args[0][:min(2, len(args[0]))], args[0][min(2, len(args[0])):]
		args = args[1:]
		if option == "-l" && value == "" {
			a.list = true
			continue
		}
		if option == "--" {
			break
		}
		if !slices.Contains([]string{"-r", "-s", "-v"}, option) {
			return a, fmt.Errorf("atf has no flag %s", option)
		}
		if value == "" {
			if len(args) == 0 {
				return a, fmt.Errorf("%s wants a value", option)
			}
			value, args = args[0], args[1:]
		}
		name, text, ok := strings.Cut(value, "=")
		switch {
		case option == "-r":
			a.result = value
		case option == "-v" && !ok:
			return a, fmt.Errorf("-v %s: not NAME=VALUE", value)
		case option == "-v":
			a.vars[name] = text
		}
	}
	switch {
	case a.list && len(args) == 0:
		return a, nil
	case a.list:
		return a, errors.New("-l lists all targets, and takes none")
	case len(args) != 1:
		return a, fmt.Errorf("atf runs one target, not %d", len(args))
	}
	a.target, a.part, _ = strings.Cut(args[0], ":")
	return a, nil
}

func runATF(ctx context.Context, c *call) (int, error) {
	if slices.Contains(c.args, "-h") || slices.Contains(c.args, "-help") || slices.Contains(c.args, "--help") {
		c.role.help(c.Out, c.flags())
		return exitOK, nil
	}
	a, err := parseATF(c.args)
	if err != nil {
		return exitError, terminal.WithHint(err, "'pfdivert atf -h' shows what it takes")
	}
	getenv := c.Getenv
	c.Getenv = func(name string) string { return cmp.Or(a.vars[name], getenv(name)) }
	if a.list {
		return exitOK, listCases(c.Out, noLab(runtime.GOOS, 1, c.Getenv("SUDO")) != "" && c.Getenv("REMOTE_SSH") == "")
	}
	targets, err := matrix.Select([]string{a.target})
	if err != nil {
		return exitError, err
	}
	switch {
	case len(targets) != 1 || targets[0].Name != a.target:
		err := fmt.Errorf("%q is no target's name", a.target)
		return exitError, terminal.WithHint(err, "'pfdivert atf -l' lists them")
	case a.part == "cleanup":
		return runCleanup(ctx, &call{IO: c.IO, role: &cleanupRole, version: c.version})
	case a.part != "" && a.part != "body":
		return exitError, fmt.Errorf("a target has no part %q", a.part)
	}
	out := io.Writer(c.Out)
	if a.result != "" {
		// Opened before: a result that can't be kept is in vain.
		f, err := os.Create(a.result)
		if err != nil {
			return exitError, err
		}
		defer f.Close()
		out = f
	}
	line, status := c.runCase(ctx, targets[0])
	_, err = fmt.Fprintln(out, line)
	return status, err
}

// listCases writes the test cases that there are. root: they need it.
func listCases(w io.Writer, root bool) error {
	b := bufio.NewWriter(w)
	fmt.Fprint(b, "Content-Type: application/X-atf-tp; version=\"1\"\n\n")
	for i, t := range append(matrix.Targets(), matrix.Claims()...) {
		if i > 0 {
			fmt.Fprintln(b)
		}
		kind := "suite"
		if t.Claim != nil {
			kind = "claim"
		}
		fmt.Fprintf(b, "ident: %s\ndescr: %s\ntimeout: 600\n", t.Name, oneLine(t.Proves()))
		fmt.Fprintf(b, "X-pfdivert.kind: %s\nX-pfdivert.family: %v\n", kind, t.Family)
		if root {
			fmt.Fprint(b, "require.user: root\nhas.cleanup: true\n")
		}
	}
	return b.Flush()
}

// oneLine makes one line of a text.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// runCase runs one target and returns the line that tells a test program's result, and its exit
// status (atf-test-program(1)).
func (c *call) runCase(ctx context.Context, t matrix.Target) (line string, status int) {
	o := runFlags{Options: c.testbed(), count: 1}
	o.Wait = labPatience
	if c.Getenv("REMOTE_SSH") == "" {
		if why := noLab(runtime.GOOS, os.Geteuid(), o.Sudo); why != "" {
			return "skipped: " + oneLine(why), exitOK
		}
	}
	broken := func(err error) (string, int) {
		terminal.PrintError(c.Err, err)
		return "broken: " + oneLine(err.Error()), exitFail
	}
	targets := []matrix.Target{t}
	progress := c.progress(&o.Options)
	defer progress.Finish()
	beds, err := testbed.Find(o.Options, targets)
	if err != nil {
		return broken(err)
	}
	files, err := report.OpenFiles(make([]string, len(report.Formats)), c.Out)
	if err != nil {
		return broken(err)
	}
	to := output{text: c.Out, style: report.StyleOf(c.Out, c.Getenv), files: files, progress: progress}
	_, found, err := c.runOn(ctx, beds, targets, o, to)
	switch {
	case found == nil || len(found.Kept()) != 1:
		return broken(cmp.Or(err, ctx.Err(), errors.New("the run ended without a result")))
	case err != nil: // the host could not be put back
		return broken(err)
	}
	return caseResult(found.Kept()[0])
}

// caseResult is the line for a result, and the exit status.
func caseResult(r matrix.Result) (line string, status int) {
	why := oneLine(r.Reason + ": " + r.Detail)
	switch r.Verdict {
	case matrix.Pass:
		return "passed", exitOK
	case matrix.Skip:
		return "skipped: " + why, exitOK
	case matrix.XFail:
		return "expected_failure: " + why, exitOK
	case matrix.Fail:
		return "failed: " + why, exitFail
	case matrix.XPass:
		return "failed: it passes, and was known to fail: " + why, exitFail
	}
	return "broken: " + why, exitFail
}
