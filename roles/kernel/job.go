package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Job is what this program is to do on a kernel, beside being a lab.
type Job struct {
	Arguments []string // its own, without the program's name
	Input     []byte   // what InputPath has there
	Out       io.Writer
	// Err gets the end of what is written to standard error there, and Output, which may be nil,
	// what is in OutputPath at the end.
	Err, Output io.Writer
}

// jobBegins is what comes before a job's output.
const jobBegins = '\x02'

// Run boots a kernel, does the job there and returns the exit status of this program there.
func Run(ctx context.Context, o Options, job Job) (status int, err error) {
	o.job = &job
	g, err := Boot(ctx, o)
	if err != nil {
		return 0, err
	}
	defer func() {
		g.Local.Kill()
		err = errors.Join(err, g.Local.Wait(ctx))
	}()
	var output bytes.Buffer
	over := make(chan error, 1)
	go func() {
		_, err := io.Copy(&output, g.Remote.Read)
		over <- err
	}()
	if err := g.begun(ctx); ctx.Err() != nil {
		return 0, context.Cause(ctx)
	} else if err != nil {
		return 0, g.Failed(err)
	}
	_, err = io.Copy(job.Out, g.Local.Read)
	if err = errors.Join(err, <-over); err != nil {
		return 0, err
	}
	if err := g.Local.Wait(ctx); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(job.Err, g.Local.Stderr()); err != nil {
		return 0, err
	}
	if job.Output != nil {
		if _, err := job.Output.Write(output.Bytes()); err != nil {
			return 0, err
		}
	}
	g.Console.waitOver(time.Second)
	if status, ok := exitLine(g.Console.Tail(consoleLines)); ok {
		return status, nil
	}
	return 0, g.failed("ended before this program did", errors.New("the machine ended"))
}

// begun waits until the program in the guest has begun the job.
func (g *Guest) begun(ctx context.Context) error {
	ctx, done := g.Booting(ctx)
	defer done()
	read := make(chan error, 1)
	go func() {
		var b [1]byte
		_, err := io.ReadFull(g.Local.Read, b[:])
		if err == nil && b[0] != jobBegins {
			err = fmt.Errorf("it began with %q", b[0])
		}
		read <- err
	}()
	select {
	case err := <-read:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// exitText is before the exit status in the last line that init prints.
const exitText = "pfdivert: exit "

// exitLine finds the exit status of the program in what init printed.
func exitLine(console string) (status int, ok bool) {
	i := strings.LastIndex(console, exitText)
	if i < 0 {
		return 0, false
	}
	_, err := fmt.Sscanf(console[i:], exitText+"%d", &status)
	return status, err == nil
}
