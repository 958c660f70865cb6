package agent

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"

	"pfdivert/pfconf/pf"
)

// replay gives a Runner that answers commands with the transcripts in testdata, those of one
// command in their order. Commands without a transcript fail the test. change may alter
// an answer.
func replay(t *testing.T, name string, change func(command string, r *pf.Result)) pf.Runner {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".txt")
	check(t, err)
	answers := map[string][]pf.Result{}
	var command string
	var r pf.Result
	for n, line := range strings.Split(string(text), "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || kind == "#":
		case kind == "$":
			command, r = rest, pf.Result{}
		case kind == "stdout:":
			r.Stdout += rest + "\n"
		case kind == "stderr:":
			r.Stderr += rest + "\n"
		case strings.HasPrefix(line, "[rc="):
			r.Status, err = strconv.Atoi(line[4 : len(line)-1])
			check(t, err)
			answers[command] = append(answers[command], r)
		default:
			t.Fatalf("%s:%d: not understood: %q", name, n+1, line)
		}
	}
	return func(_ context.Context, c pf.Command) (pf.Result, error) {
		command := strings.Join(c.Argv, " ")
		left := answers[command]
		if len(left) == 0 {
			t.Errorf("no transcript answers %q", command)
			return pf.Result{Stderr: "no transcript answers this", Status: 99}, nil
		}
		answers[command] = left[1:]
		r := left[0]
		if change != nil {
			change(command, &r)
		}
		return r, nil
	}
}
