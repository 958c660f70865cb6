// Package roles is the command line: the flags, the help and the wiring of each role of the
// program.
package roles

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"pfdivert/matrix"
	"pfdivert/roles/kernel"
	"pfdivert/roles/terminal"
	"pfdivert/roles/testbed"
)

// Role is one of the commands of the program, such as run or doctor.
type Role struct {
	Name    string
	Usage   string // what comes after the name
	Summary string // one line
	Help    string // the rest, with the exit status
	// Link: 'pfdivert install' makes a symlink of this name.
	Link bool
	// NoUndo: it changes nothing that is to be undone, and a signal ends it at once.
	NoUndo bool
	// Hidden roles are for the program itself.
	Hidden bool
	run    func(ctx context.Context, c *call) (int, error)
}

// Standard returns the standard streams and the environment of this process.
func Standard() IO {
	return IO{os.Stdin, os.Stdout, os.Stderr, os.Getenv}
}

// IO is what a role reads from and writes to.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
}

// call is one start of a role.
type call struct {
	IO
	role    *Role
	version string
	args    []string
	set     *flag.FlagSet // what flags returned
}

// The exit statuses of the orchestrator; the other roles have 0, 1 and 2 too.
const (
	exitOK    = 0
	exitFail  = 1
	exitError = 2
)

// all lists the roles in the order in which help shows them.
func all() []*Role {
	return []*Role{
		&orchestratorRole, &listRole, &compareRole, &mergeRole, &kernelsRole, &initramfsRole, &faultsRole, &labRole,
		&checkSetupRole,
		&doctorRole, &cleanupRole,
		&serverRole, &clientRole, &packetRole, &pfSetupRole, &natlookRole,
		&atfRole, &installRole, &versionRole, &helpRole, &completeRole, &agentRole, &guestRole,
	}
}

func find(name string) *Role {
	for _, r := range all() {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// gcPercent is how far the heap may grow between collections.
const gcPercent = 400

// Main runs the role that args, with the program's name in front, ask for, and returns the exit
// status. It prints the error of a role that fails.
func Main(version string, args []string, std IO) int {
	// Little memory is alive at any time, and collecting it less often saves a tenth
	// of a long run's time.
	debug.SetGCPercent(gcPercent)
	switch {
	case kernel.IsInit():
		kernel.Init(func(name string) bool { return find(name) != nil }) // does not return
	case kernel.IsModprobe(args):
		return kernel.Modprobe(args, std.Err)
	}
	role, rest, err := pick(args)
	if err == nil {
		err = limits()
	}
	if err == nil {
		var status int
		if status, err = play(role, version, rest, std); err == nil {
			return status
		}
	}
	terminal.PrintError(std.Err, err)
	return exitError
}

// pick finds the role by the name that the program was started under, or by the first argument.
// Without either, all arguments are the orchestrator's.
func pick(args []string) (*Role, []string, error) {
	if len(args) == 0 {
		return &orchestratorRole, nil, nil
	}
	if len(args) > 1 && args[1] == agentRole.Name { // started by a role that has a name of its own
		return &agentRole, args[2:], nil
	}
	base := strings.TrimPrefix(filepath.Base(args[0]), "pfdivert-")
	if r := find(base); r != nil && !r.Hidden {
		return r, args[1:], nil
	}
	if len(args) == 1 {
		return &orchestratorRole, nil, nil
	}
	switch args[1] {
	case "-h", "-help", "--help":
		return &helpRole, nil, nil
	case "-version", "--version":
		return &versionRole, args[2:], nil
	case "orchestrator":
		return &orchestratorRole, args[2:], nil
	}
	if strings.HasPrefix(args[1], "-") {
		return &orchestratorRole, args[1:], nil
	}
	if r := find(args[1]); r != nil {
		return r, args[2:], nil
	}
	err := fmt.Errorf("there is no role %q", args[1])
	if _, unknown := matrix.Select(args[1:2]); unknown == nil {
		return nil, nil, terminal.WithHint(err, fmt.Sprintf("it is a target: pfdivert run '%s'", args[1]))
	}
	return nil, nil, terminal.WithHint(err, suggestRole(args[1])+"'pfdivert help' shows all")
}

// suggestRole returns the beginning of a hint that names the role nearest to the word, if any is.
func suggestRole(word string) string {
	var names []string
	for _, r := range all() {
		if !r.Hidden {
			names = append(names, "'"+r.Name+"'")
		}
	}
	return matrix.Suggest("'"+word+"'", names)
}

// play runs the role until it ends or a signal ends it.
func play(role *Role, version string, args []string, std IO) (int, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	defer signal.Stop(signals)
	switch {
	case role.NoUndo:
	case role.Hidden:
		// An agent's orchestrator gets the terminal's signals; the agent ends when it
		// does, and has to undo things when no one reads what it writes.
		signal.Notify(signals, syscall.SIGTERM)
		signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	default:
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		restore := terminal.Keep()
		defer func() {
			if ctx.Err() != nil {
				restore()
			}
		}()
	}
	go func() {
		select {
		case s := <-signals:
			cancel(interrupted{s})
		case <-ctx.Done():
		}
	}()
	status, err := role.run(ctx, &call{IO: std, role: role, version: version, args: args})
	if errors.Is(err, flag.ErrHelp) {
		return exitOK, nil
	}
	return status, err
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal os.Signal }

func (i interrupted) Error() string { return i.signal.String() }

// testbed returns how the environment says to reach the hosts; a role adds what its flags say.
func (c *call) testbed() testbed.Options {
	return testbed.Options{Getenv: c.Getenv, Notices: c.Err, Sudo: c.Getenv("SUDO")}
}
