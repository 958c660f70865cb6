package agent

import (
	"context"
	"strings"
	"testing"

	"pfdivert/pfconf/program"
	"pfdivert/pfconf/program/replaytest"
)

// replay returns a Runner that answers commands with the transcripts in testdata. change may alter
// an answer.
func replay(t *testing.T, name string, change func(command string, r *program.Output)) program.Runner {
	t.Helper()
	run := replaytest.Offer(t, "testdata/"+name+".txt")
	return func(ctx context.Context, c program.Command) (program.Output, error) {
		r, err := run(ctx, c)
		if change != nil {
			change(strings.Join(c.Argv, " "), &r)
		}
		return r, err
	}
}
