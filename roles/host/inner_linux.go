package host

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"pfdivert/roles/lab"

	"golang.org/x/sys/unix"
)

// RemoteAgent is REMOTE's agent, seen from LOCAL's, which started it.
type RemoteAgent struct {
	Lab   *lab.Lab
	ended chan struct{}
	err   error
}

// StartRemoteAgent is for LOCAL's agent in a lab, before all else: it builds
// the lab around this process and starts this program's file with args as
// REMOTE's agent, on the pipes that Lab left for it. settings is the last
// argument that Lab gave. The agent of REMOTE may begin while the hosts are not
// connected yet; that they are is for LOCAL's to tell.
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

// Ended is closed when REMOTE's agent has ended.
func (r *RemoteAgent) Ended() <-chan struct{} { return r.ended }

// Close waits for the end of REMOTE's agent, which the end of its input brings
// about, and returns the lab up. If ctx ends first, the agent is killed. The error
// is that of exec.Cmd.Wait.
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
