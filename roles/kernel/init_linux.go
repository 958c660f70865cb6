package kernel

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// GuestRole is the first argument by which init starts this program for the lab of a Guest.
const GuestRole = "guest"

// IsInit reports whether the kernel started this program as its first process. A container does
// that as well, but it has mounted /proc before.
func IsInit() bool {
	if os.Getpid() != 1 {
		return false
	}
	_, err := os.Stat("/proc/self")
	return errors.Is(err, fs.ErrNotExist)
}

// Init is the work of the first process: it mounts what programs expect, loads the modules and
// starts this program again with what stands behind "--" on the kernel's command line. When that
// has ended it says so on the console and switches the machine off. It never returns, for the
// kernel panics when its first process ends; so all that can fail is done by others. Words that do
// not begin with a role's name are the arguments of a run.
func Init(isRole func(string) bool) {
	defer powerOff() // also when something here panics
	status := 2
	defer func() {
		if e := recover(); e != nil {
			fmt.Fprintln(os.Stderr, "pfdivert: init:", e)
		}
		fmt.Fprintf(os.Stdout, exitText+"%d\n", status)
	}()
	for _, m := range []struct{ kind, dir string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		if err := mount(m.kind, m.dir); err != nil {
			fmt.Fprintf(os.Stderr, "pfdivert: mount %s: %v\n", m.dir, err)
		}
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		fmt.Fprintln(os.Stderr, "pfdivert: the kernel's command line:", err)
	}
	env := []string{"PATH=/sbin:/bin", "HOME=/root", "TERM=dumb", "NO_COLOR=1"}
	if _, err := os.Stat(orderPath); err == nil {
		child(append([]string{modprobePath}, "-a"), env)
	}
	words := behindDashes(string(line))
	if len(words) == 0 || !isRole(words[0]) {
		words = append([]string{"run"}, words...)
	}
	status = child(append([]string{"pfdivert"}, words...), env)
}

// plain returns a file whose text goes to the console, which a program does not take for a
// terminal, and a function that waits until all has got there.
func plain() (w *os.File, wait func()) {
	r, w, err := os.Pipe()
	if err != nil {
		return os.Stdout, func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(os.Stdout, r)
	}()
	return w, func() {
		w.Close()
		_ = unix.Kill(-1, unix.SIGKILL) // orphans hold the other end, too
		<-done
	}
}

// child runs this program and waits for its end, and meanwhile for those of all orphans. The status
// is a shell's.
func child(argv []string, env []string) (status int) {
	out, wait := plain()
	defer wait()
	p, err := os.StartProcess("/proc/self/exe", argv,
		&os.ProcAttr{Env: env, Files: []*os.File{os.Stdin, out, os.Stderr}, Dir: "/"})
	if err != nil {
		fmt.Fprintf(os.Stderr, "pfdivert: start %s: %v\n", strings.Join(argv, " "), err)
		return 2
	}
	for {
		var s unix.WaitStatus
		pid, err := unix.Wait4(-1, &s, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Fprintln(os.Stderr, "pfdivert: wait:", err)
			return 2
		case pid == p.Pid && s.Signaled():
			return 128 + int(s.Signal())
		case pid == p.Pid && s.Exited():
			return s.ExitStatus()
		}
	}
}

// mount mounts a file system unless something is there already, as with CONFIG_DEVTMPFS_MOUNT.
func mount(kind, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(kind, dir, kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

// behindDashes returns the words behind "--" on a kernel's command line. Double quotes keep spaces
// (next_arg, lib/cmdline.c).
func behindDashes(line string) (words []string) {
	var word strings.Builder
	quoted, in, behind := false, false, false
	end := func() {
		switch {
		case !in:
		case behind:
			words = append(words, word.String())
		case word.String() == "--":
			behind = true
		}
		word.Reset()
		in = false
	}
	for _, r := range line {
		switch {
		case r == '"':
			quoted, in = !quoted, true
		case !quoted && (r == ' ' || r == '\t' || r == '\n'):
			end()
		default:
			word.WriteRune(r)
			in = true
		}
	}
	end()
	return words
}

// powerOff switches the machine off, or where the kernel can't do that, resets it, which ends QEMU
// with -no-reboot. It does not return.
func powerOff() {
	drain(os.Stdout)
	unix.Sync()
	for _, how := range []int{unix.LINUX_REBOOT_CMD_POWER_OFF, unix.LINUX_REBOOT_CMD_RESTART} {
		_ = unix.Reboot(how)
	}
	for {
		time.Sleep(time.Hour) // the first process must not end
	}
}

// drain waits until a terminal has sent what was written to it (tcdrain(3)).
func drain(f *os.File) { _ = unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1) }

// Port is one of the guest's channels to its Guest: a virtio console port of a name.
func Port(name string) (*os.File, error) {
	events, err := newUevents()
	if err != nil {
		return nil, err
	}
	defer events.close()
	for {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, path := range names {
			text, err := os.ReadFile(path)
			if err != nil || strings.TrimSpace(string(text)) != name {
				continue
			}
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), os.O_RDWR, 0)
		}
		if err := events.wait(portPatience); err != nil {
			return nil, fmt.Errorf("the guest has no port %s: %w", name, err)
		}
	}
}

// portPatience is how long a port may be in coming when the kernel announces no other device.
const portPatience = 30 * time.Second

// uevents are the kernel's announcements of devices (NETLINK_KOBJECT_UEVENT).
type uevents int

func newUevents() (uevents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, os.NewSyscallError("socket(NETLINK_KOBJECT_UEVENT)", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bind(NETLINK_KOBJECT_UEVENT)", err)
	}
	return uevents(fd), nil
}

// wait waits for the next announcement.
func (u uevents) wait(patience time.Duration) error {
	t := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(int(u), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &t); err != nil {
		return err
	}
	for {
		_, _, err := unix.Recvfrom(int(u), make([]byte, 4<<10), 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS): // some were lost: look again
			return nil
		case errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("no device came for %v", patience)
		default:
			return err
		}
	}
}

func (u uevents) close() { _ = unix.Close(int(u)) }
