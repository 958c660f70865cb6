package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"pfdivert/roles/lab/namespace"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Run builds a lab and runs a command in one of its hosts. self are the
// arguments that lead this program to the role that calls Run; the program is
// started once more with them, InnerArgument and another. The exit status is the
// command's (128 and more: a signal). When it ends, what it left running is
// killed and the lab is gone; the end of ctx kills it at once.
//
// A terminal's interrupts reach the command, so ctx must not end by them.
func Run(ctx context.Context, self []string, o RunOptions, std Stdio) (exit int, err error) {
	if len(o.Command) == 0 {
		o.Command = shell()
	}
	settings, err := json.Marshal(o)
	if err != nil {
		return 0, err
	}
	args := append(self[:len(self):len(self)], InnerArgument, string(settings))
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	// The signal comes when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return follow(cmd, std, func() error { return namespace.Start(cmd) })
}

// Inner is the other half of Run, in the process that it started, with the
// arguments behind InnerArgument.
func Inner(ctx context.Context, args []string, std Stdio) (exit int, err error) {
	var o RunOptions
	if len(args) != 1 {
		return 0, fmt.Errorf("lab: %s takes one argument, not %d", InnerArgument, len(args))
	}
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return 0, fmt.Errorf("lab: %s: %w", InnerArgument, err)
	}
	l, err := Build(ctx, o.Config)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	if f, ok := std.Err.(*os.File); ok && !o.Quiet && term.IsTerminal(int(f.Fd())) {
		io.WriteString(std.Err, l.describe(o.Host))
	}
	// Whatever the command leaves behind becomes a child of this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("lab: become the reaper: %w", err)
	}
	cmd := exec.CommandContext(ctx, o.Command[0], o.Command[1:]...)
	exit, err = follow(cmd, std, func() error { return l.Start(cmd, o.Host) })
	reap()
	return exit, err
}

// follow starts cmd by start and waits for its end. Interrupts from a terminal
// go to every process of the job; this one must outlive them. Signals for one
// process it passes on.
func follow(cmd *exec.Cmd, std Stdio, start func() error) (int, error) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = std.In, std.Out, std.Err
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := start(); err != nil {
		return 0, fmt.Errorf("run %s: %w", cmd.Args[0], err)
	}
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case s := <-signals:
				if s == syscall.SIGTERM || s == syscall.SIGHUP {
					_ = cmd.Process.Signal(s) // an error says that it is over
				}
			case <-over:
				return
			}
		}
	}()
	return exitStatus(cmd.Wait())
}

// reap kills this process's children, and their orphans, until none is left.
func reap() {
	for {
		// Of every thread, because a child belongs to the one that started it
		// and an orphan to any.
		threads, _ := os.ReadDir("/proc/self/task")
		for _, t := range threads {
			b, _ := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
			for _, child := range strings.Fields(string(b)) {
				var pid int
				if _, err := fmt.Sscan(child, &pid); err == nil {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
		}
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && err != unix.EINTR {
			return // ECHILD: no one is left
		}
	}
}

// describe says what there is to see in the lab.
func (l *Lab) describe(here HostName) string {
	var b strings.Builder
	line := func(name string, of func(AddressPlan) string) {
		var addresses []string
		for _, f := range l.Families {
			addresses = append(addresses, of(l.Config.PlanOf(f)))
		}
		fmt.Fprintf(&b, "%-7s %s\n", name, strings.Join(addresses, "  "))
	}
	line("LOCAL", func(p AddressPlan) string { return p.Local.Addr().String() })
	line("REMOTE", func(p AddressPlan) string { return p.Remote.Addr().String() })
	line("FAKE", func(p AddressPlan) string { return p.Fakes.String() })
	there := Remote
	if here == Remote {
		there = Local
	}
	fmt.Fprintf(&b, "This is %s; exit ends the lab. A command on %s: nsenter --net=%s CMD\n",
		strings.ToUpper(string(here)), strings.ToUpper(string(there)), l.path(there))
	return b.String()
}

// path names the host's namespace as long as the lab stands.
func (l *Lab) path(h HostName) (path string) {
	_ = l.In(h, func() error {
		path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		return nil
	})
	return path
}

// exitStatus returns the exit status of a command that cmd.Wait gave err for, as a
// shell has it: a signal counts from 128. Other errors stay errors.
func exitStatus(err error) (int, error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, err
	}
	if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// shell is the user's shell.
func shell() []string {
	if s := os.Getenv("SHELL"); s != "" {
		return []string{s}
	}
	return []string{"/bin/sh"}
}
