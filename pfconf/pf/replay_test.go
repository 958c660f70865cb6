package pf

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A replay is a file in testdata/replay: comments, then commands as they were run
// and answered.
//
//	# comment
//	$ pfctl -a regress -f -
//	stdin: pass …
//	stdout: …
//	stderr: …
//	[rc=0]
//
// The runner answers a command line with the answers that it was given, in their
// order; a command line without one, or with other input, fails the test, and so
// does an answer that nobody asked for.
type replay struct {
	t  *testing.T
	mu sync.Mutex
	// answers by command line and input
	answers map[string][]Result
}

func play(t *testing.T, name string) Runner {
	t.Helper()
	text, err := os.ReadFile("testdata/replay/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	p := &replay{t: t, answers: map[string][]Result{}}
	var argv, stdin string
	var r Result
	for n, line := range strings.Split(string(text), "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || kind == "#":
		case kind == "$":
			argv, stdin, r = rest, "", Result{}
		case kind == "stdin:":
			stdin += rest + "\n"
		case kind == "stdout:":
			r.Stdout += rest + "\n"
		case kind == "stderr:":
			r.Stderr += rest + "\n"
		case strings.HasPrefix(line, "[rc="):
			if r.Status, err = strconv.Atoi(line[4 : len(line)-1]); err != nil {
				t.Fatalf("%s:%d: %v", name, n+1, err)
			}
			p.answers[argv+"\n"+stdin] = append(p.answers[argv+"\n"+stdin], r)
		default:
			t.Fatalf("%s:%d: not understood: %q", name, n+1, line)
		}
	}
	t.Cleanup(func() {
		for command, left := range p.answers {
			if len(left) > 0 {
				t.Errorf("%s: nobody ran %q (%d times)", name, command, len(left))
			}
		}
	})
	return p.run
}

func (p *replay) run(_ context.Context, c Command) (Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	command := strings.Join(c.Argv, " ") + "\n" + c.Stdin
	left := p.answers[command]
	if len(left) == 0 {
		p.t.Errorf("no transcript answers %q", command)
		return Result{Stderr: "no transcript answers this", Status: 99}, nil
	}
	p.answers[command] = left[1:]
	return left[0], nil
}
