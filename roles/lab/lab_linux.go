package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"pfdivert/pfconf"
	"pfdivert/roles/lab/namespace"

	"golang.org/x/sys/unix"
)

// Lab is a lab that stands. Its hosts live as long as it does and as the
// processes that were started in them.
type Lab struct {
	Config Config
	// Families are those that both hosts have; Missing says why another is
	// not there, with the probe that proved it.
	Families []pfconf.Family
	Missing  map[pfconf.Family]string

	// A thread in each host's namespace. They stay until Close, so that a
	// process started from one may have a Pdeathsig: that signal comes when
	// the thread ends, not the process (prctl(2)).
	threads map[HostName]*thread
}

// Build makes a lab and connects its hosts: New and Connect.
func Build(ctx context.Context, c Config) (*Lab, error) {
	l, err := New(c)
	if err != nil {
		return nil, err
	}
	if err := l.Connect(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// New makes the namespace of the calling thread LOCAL and a new one REMOTE.
// LOCAL must be fresh: its routes and sysctls are set, and it is left to end
// with its processes. Lack of privilege is a *namespace.ForbiddenError.
//
// Processes may be started in both hosts, to prepare while Connect is at work.
func New(c Config) (_ *Lab, err error) {
	l := &Lab{Config: c, Families: []pfconf.Family{pfconf.Inet}, threads: map[HostName]*thread{}}
	defer func() {
		if err != nil {
			l.Close()
			err = fmt.Errorf("lab: %w", namespace.Explain(err))
		}
	}()
	if err := namespace.OwnSettings(); err != nil {
		return nil, err
	}
	here, err := openNamespace()
	if err != nil {
		return nil, fmt.Errorf("LOCAL's namespace: %w", err)
	}
	defer here.Close()
	l.threads[Remote], err = newThread(func() error {
		return os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNET))
	})
	if err != nil {
		return nil, err
	}
	l.threads[Local], err = newThread(func() error {
		return os.NewSyscallError("setns", unix.Setns(int(here.Fd()), unix.CLONE_NEWNET))
	})
	if err != nil {
		return nil, err
	}
	if err := probeInet6(); err == nil {
		l.Families = append(l.Families, pfconf.Inet6)
	} else if !errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, fmt.Errorf("is there IPv6: %w", err)
	} else {
		l.Missing = map[pfconf.Family]string{pfconf.Inet6: "this kernel has no IPv6: " + err.Error()}
	}
	return l, nil
}

// Connect lays the cable and gives both hosts addresses and routes. When it
// returns, the first packet either way arrives.
func (l *Lab) Connect(ctx context.Context) error {
	if err := l.connect(ctx); err != nil {
		return fmt.Errorf("lab: %w", namespace.Explain(err))
	}
	return nil
}

// probeInet6 asks for an IPv6 socket, which a kernel without IPv6 or one that
// was booted with ipv6.disable=1 refuses with EAFNOSUPPORT. A test replaces it.
var probeInet6 = func() error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket(AF_INET6)", err)
	}
	return unix.Close(fd)
}

// In runs f on a thread in the host's namespace and gives its error. Sockets
// that f opens and processes that it starts belong to the host. f must not
// hold the thread for long, nor unlock it.
func (l *Lab) In(h HostName, f func() error) error {
	t := l.threads[h]
	if t == nil {
		return fmt.Errorf("lab: no host %q", h)
	}
	return t.do(f)
}

// Start starts cmd in the host. If cmd has a Pdeathsig, it comes when the lab
// is closed or its process ends. In its environment it has Marker.
func (l *Lab) Start(cmd *exec.Cmd, h HostName) error {
	cmd.Env = append(cmd.Environ(), Marker+"=1")
	return l.In(h, cmd.Start)
}

// Close releases the hosts. REMOTE is gone, and with it the cable, when its
// last process and socket are.
func (l *Lab) Close() {
	for _, t := range l.threads {
		t.end()
	}
}

// openNamespace opens the calling thread's network namespace.
func openNamespace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }
