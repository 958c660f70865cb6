// Package replaytest answers for programs of the system with transcripts, in tests.
package replaytest

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pfdivert/pfconf/program"
)

// A replay is a file of comments, then of commands as they were run and answered.
//
//	# comment
//	$ pfctl -a regress -f -
//	stdin: pass …
//	stdout: …
//	stderr: …
//	[rc=0]
type replay struct {
	t  *testing.T
	mu sync.Mutex
	// answers by command line and input
	answers map[string][]program.Output
}

// Play returns a Runner that answers a command line with the answers that the file has
// for it, in their order. A command line without one, or with other input, fails the test, and
// so does an answer that no one asked for.
func Play(t *testing.T, file string) program.Runner {
	t.Helper()
	p := read(t, file)
	t.Cleanup(func() {
		for command, left := range p.answers {
			if len(left) > 0 {
				t.Errorf("%s: nothing ran %q (%d times)", file, command, len(left))
			}
		}
	})
	return p.run
}

// Offer is Play for a test that may end before all has been asked for.
func Offer(t *testing.T, file string) program.Runner {
	t.Helper()
	return read(t, file).run
}

func read(t *testing.T, file string) *replay {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := &replay{t: t, answers: map[string][]program.Output{}}
	var argv, stdin string
	var r program.Output
	for n, line := range strings.Split(string(text), "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || kind == "#":
		case kind == "$":
			argv, stdin, r = rest, "", program.Output{}
		case kind == "stdin:":
			stdin += rest + "\n"
		case kind == "stdout:":
			r.Stdout += rest + "\n"
		case kind == "stderr:":
			r.Stderr += rest + "\n"
		case strings.HasPrefix(line, "[rc="):
			if r.Status, err = strconv.Atoi(line[4 : len(line)-1]); err != nil {
				t.Fatalf("%s:%d: %v", file, n+1, err)
			}
			p.answers[argv+"\n"+stdin] = append(p.answers[argv+"\n"+stdin], r)
		default:
			t.Fatalf("%s:%d: not understood: %q", file, n+1, line)
		}
	}
	return p
}

func (p *replay) run(_ context.Context, c program.Command) (program.Output, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	command := strings.Join(c.Argv, " ") + "\n" + c.Stdin
	left := p.answers[command]
	if len(left) == 0 {
		p.t.Errorf("no transcript answers %q", command)
		return program.Output{Stderr: "no transcript answers this", Status: 99}, nil
	}
	p.answers[command] = left[1:]
	return left[0], nil
}
