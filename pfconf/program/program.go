// Package program runs the programs of the system that this one drives, such as
// pfctl(8), ipfw(8) and route(8), and keeps what they say.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Command is one command line to run on the host.
type Command struct {
	Argv  []string // Argv[0] is a name such as "pfctl", or an absolute path
	Stdin string
}

// Output is what a command said. A command that could not be started at all,
// or was killed, has none.
type Output struct {
	Stdout, Stderr string
	Status         int // exit status
}

// Runner runs a command to its end. An exit status other than 0 is no error of
// the Runner.
type Runner func(context.Context, Command) (Output, error)

// The most that a command may print. A table of 100,000 states, OpenBSD's
// default limit, is some 30 MB of `pfctl -ss -vv`.
const (
	maxStdout = 256 << 20
	maxStderr = 1 << 20
)

// outputPatience is how long the output of a command that has ended may take to be read. On
// a machine with more to do than it can, a second was too short.
const outputPatience = 10 * time.Second

// Exec is the Runner that runs commands on this host.
func Exec(ctx context.Context, c Command) (Output, error) {
	return run(ctx, c, (*exec.Cmd).Start)
}

// ExecBy is Exec for a process that has to choose when a program is started: start
// must call cmd.Start.
func ExecBy(start func(*exec.Cmd) error) Runner {
	return func(ctx context.Context, c Command) (Output, error) { return run(ctx, c, start) }
}

func run(ctx context.Context, c Command, start func(*exec.Cmd) error) (Output, error) {
	path, err := find(c.Argv[0])
	if err != nil {
		return Output{}, err
	}
	cmd := exec.CommandContext(ctx, path, c.Argv[1:]...)
	cmd.Args[0] = c.Argv[0]
	cmd.Env = []string{"LC_ALL=C", "PATH=/sbin:/usr/sbin:/bin:/usr/bin"}
	cmd.Stdin = strings.NewReader(c.Stdin)
	stdout, stderr := &bounded{left: maxStdout}, &bounded{left: maxStderr}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = outputPatience
	if err = start(cmd); err == nil {
		err = cmd.Wait()
	}
	if ctx.Err() != nil {
		return Output{}, ctx.Err()
	}
	var exit *exec.ExitError
	switch {
	case stdout.over || stderr.over:
		return Output{}, errors.New("it prints more than can be true")
	case err == nil || errors.As(err, &exit) && exit.Exited():
		return Output{Stdout: stdout.String(), Stderr: stderr.String(), Status: cmd.ProcessState.ExitCode()}, nil
	}
	return Output{}, err
}

// find is exec.LookPath, and knows where pfctl and its like are when the agent's PATH, which
// may be a plain user's, does not.
func find(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		if p, errSbin := exec.LookPath("/sbin/" + name); errSbin == nil {
			return p, nil
		}
	}
	return path, err
}

// bounded keeps what is written to it up to a limit.
type bounded struct {
	bytes.Buffer
	left int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.over = true
		return 0, fmt.Errorf("output is too long")
	}
	b.left -= len(p)
	return b.Buffer.Write(p)
}

// Lines returns the lines of a command's output, without blank ones.
func Lines(s string) []string {
	var lines []string
	for l := range strings.Lines(s) {
		if l = strings.TrimRight(l, "\r\n"); l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}
