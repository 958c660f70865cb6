package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"pfdivert/roles/lab"
	"pfdivert/roles/lab/namespace"
)

// Lab starts the two agents of a lab. LOCAL's is a child in new namespaces; it builds the lab and
// starts REMOTE's (StartRemoteAgent). When one agent ends, the other is told to end. When ctx ends,
// both are killed. The error is a *namespace.ForbiddenError if the system forbids network
// namespaces.
//
// Each agent is pinned to a CPU of its own if this process may use two. Packets wait in a queue for
// each CPU, so what one host sends arrives in the order in which it was sent, which fences rely on.
// This process keeps off REMOTE's CPU until REMOTE's agent has ended.
func Lab(ctx context.Context, o LabOptions) (local, remote *Process, err error) {
	var p, q pipes // LOCAL's and REMOTE's
	defer func() {
		p.closeTheirs()
		if err != nil {
			p.closeOurs()
			q.closeTheirs()
			q.closeOurs()
			err = fmt.Errorf("start the lab's agents: %w", err)
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	var stdin, remoteStdin io.Reader
	var stdout, stderr, remoteStdout, remoteStderr io.Writer
	if local, err = p.link(&stdin, &stdout, &stderr); err != nil {
		return nil, nil, err
	}
	if remote, err = q.link(&remoteStdin, &remoteStdout, &remoteStderr); err != nil {
		return nil, nil, err
	}
	settings := labSettings{Config: o.Config}
	settings.LocalCPU, settings.RemoteCPU, settings.Pin = chooseCPUs()

	var cmd *exec.Cmd
	var begin func() error
	extra := []*os.File{remoteStdin.(*os.File), remoteStdout.(*os.File), remoteStderr.(*os.File)}
	if len(o.Sudo) > 0 {
		settings.Enter = &enterSettings{PID: os.Getpid()}
		for i, f := range extra {
			settings.Enter.FDs[i] = int(f.Fd())
		}
		cmd, err = o.sudoCommand(settings)
		begin = func() error { return cmd.Start() }
	} else {
		settings.Pipes = [3]int{3, 4, 5} // where exec.Cmd puts ExtraFiles
		cmd, err = o.command(settings)
		begin = func() error {
			if err := settings.pin(settings.LocalCPU); err != nil {
				return err
			}
			return namespace.Start(cmd)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	if len(o.Sudo) == 0 {
		cmd.ExtraFiles = extra
	}
	if err := start(ctx, cmd, begin, local); err != nil {
		return nil, nil, err
	}
	if len(o.Sudo) == 0 {
		q.closeTheirs()
	} else {
		// REMOTE's must stay until the agent has opened them, which it has when it
		// speaks, or will never.
		heard := &onRead{ReadCloser: local.Read, then: sync.OnceFunc(q.closeTheirs)}
		local.Read = heard
		go func() {
			<-local.ended
			heard.then()
		}()
	}
	back := func() {}
	if settings.Pin {
		back = keepOff(settings.RemoteCPU)
	}
	remote.kill = local.kill // its Pdeathsig does the rest
	remote.ended = make(chan struct{})
	go func() {
		<-remote.stderr.over // the last to hold it open was the process
		local.Write.Close()
		back()
		close(remote.ended)
	}()
	return local, remote, nil
}

// LabOn starts the agents of a lab as Lab does, on files that are there in place of pipes: standard
// input, output and error of each. It waits for their end.
func LabOn(o LabOptions, local, remote [3]*os.File) error {
	settings := labSettings{Config: o.Config, Pipes: [3]int{3, 4, 5}}
	settings.LocalCPU, settings.RemoteCPU, settings.Pin = chooseCPUs()
	cmd, err := o.command(settings)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = local[0], local[1], local[2], remote[:]
	// The signal comes when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := namespace.Start(cmd); err != nil {
		return fmt.Errorf("start the lab's agents: %w", err)
	}
	return cmd.Wait()
}

// command is LOCAL's agent as a child that is started in its namespace.
func (o LabOptions) command(s labSettings) (*exec.Cmd, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", append(o.Args[:len(o.Args):len(o.Args)], string(b))...)
	cmd.Args[0] = os.Args[0]
	cmd.SysProcAttr = dieWithParent(syscall.SIGKILL)
	// A terminal's signals are the orchestrator's to act on.
	cmd.SysProcAttr.Setpgid = true
	return cmd, nil
}

// sudoCommand is LOCAL's agent as a child that becomes root and then enters its
// namespace. It stays in the orchestrator's process group, because sudo in the
// background may not use the terminal.
func (o LabOptions) sudoCommand(s labSettings) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	argv := append(o.Sudo[:len(o.Sudo):len(o.Sudo)], self)
	argv = append(append(argv, o.Args...), string(b))
	return exec.Command(argv[0], argv[1:]...), nil
}

// onRead calls a function at the first byte or error that is read.
type onRead struct {
	io.ReadCloser
	then func()
}

func (r *onRead) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.then()
	return n, err
}

// RemoteAgent is REMOTE's agent in a lab, as LOCAL's agent sees it, which started it.
type RemoteAgent struct {
	Lab   *lab.Lab
	ended chan struct{}
	err   error
}

// StartRemoteAgent builds the lab around this process, LOCAL's agent, and starts this program's
// file with args as REMOTE's agent, on the pipes that Lab left for it. Call it before anything
// else. settings is the last argument that Lab passed. REMOTE's agent may start before the hosts
// are connected; LOCAL's agent reports when they are.
func StartRemoteAgent(ctx context.Context, settings string, args []string) (*RemoteAgent, error) {
	var s labSettings
	d := json.NewDecoder(strings.NewReader(settings))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("settings of the lab: %w", err)
	}
	if s.Enter != nil {
		return nil, enter(s) // comes back to here, without Enter
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.SysProcAttr = dieWithParent(syscall.SIGKILL)
	var files [3]*os.File
	for i, fd := range s.Pipes {
		if fd <= 2 {
			return nil, fmt.Errorf("descriptor %d is this agent's own", fd)
		}
		// Other children must not hold them open.
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("descriptor %d is not a pipe of REMOTE's agent: %w", fd, err)
		}
		files[i] = os.NewFile(uintptr(fd), "REMOTE's pipe")
		defer files[i].Close()
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]

	l, err := lab.New(s.Config)
	if err != nil {
		return nil, err
	}
	err = l.In(lab.Remote, func() error {
		if err := s.pin(s.RemoteCPU); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("start REMOTE's agent: %w", err)
	}
	r := &RemoteAgent{Lab: l, ended: make(chan struct{})}
	go func() {
		r.err = cmd.Wait()
		close(r.ended)
	}()
	// Meanwhile, on the other CPU, that program starts.
	if err := l.Connect(ctx); err != nil {
		l.Close() // kills it, by Pdeathsig
		<-r.ended
		return nil, err
	}
	return r, nil
}

// Close waits for REMOTE's agent to end, which it does when its input ends, and releases the lab.
// If ctx ends first, the agent is killed. The error is that of exec.Cmd.Wait.
func (r *RemoteAgent) Close(ctx context.Context) error {
	select {
	case <-r.ended:
		r.Lab.Close()
	case <-ctx.Done():
		r.Lab.Close() // kills it, by Pdeathsig
		<-r.ended
	}
	if r.err != nil {
		return fmt.Errorf("REMOTE's agent: %w", r.err)
	}
	return nil
}

// enter opens REMOTE's pipes, makes a network namespace and executes this
// program anew in it, with the same arguments but for the settings. A process
// has one namespace for all its threads if it had it before it had the threads:
// execve(2) leaves only the calling one, with what it has. It returns on error.
func enter(s labSettings) error {
	from := *s.Enter
	s.Enter = nil
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_WRONLY} {
		path := fmt.Sprintf("/proc/%d/fd/%d", from.PID, from.FDs[i])
		fd, err := unix.Open(path, flags, 0) // stays open in the new program
		if err != nil {
			return fmt.Errorf("open REMOTE's pipe %s: %w", path, err)
		}
		s.Pipes[i] = fd
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if len(os.Args) < 2 {
		return errors.New("no settings of a lab among the arguments")
	}
	args := append(os.Args[:len(os.Args)-1:len(os.Args)-1], string(b))
	if err := s.pin(s.LocalCPU); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return namespace.Explain(os.NewSyscallError("unshare", err))
	}
	// sudo, which is the parent, undid this when it became root.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("die with the parent: %w", err)
	}
	return fmt.Errorf("execute anew: %w", syscall.Exec("/proc/self/exe", args, os.Environ()))
}
