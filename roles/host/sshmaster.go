package host

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxAnswer bounds what a host may answer to one script, or print before its
// first answer, in bytes.
const maxAnswer = 256 << 10

// master is the first ssh to a host: it logs in, and later ones go through its
// socket. Its own session is a sh that carries out scripts, one after the
// other. That sh, and the master with it, ends when this process does, however
// that ends, because then its standard input does.
type master struct {
	ssh  *sshCommand
	as   *Invoker
	dir  *controlDir
	link *Process
	out  *bufio.Reader
	mark string // begins a line of this program's own, in noise
	// trips counts the times that something was sent and an answer awaited.
	trips int
}

// startMaster calls ssh. It may ask on the terminal, if ask is set, for as long
// as that takes.
func startMaster(ctx context.Context, c sshCommand, as *Invoker, ask bool) (*master, error) {
	dir, err := newControlDir(as)
	if err != nil {
		return nil, err
	}
	c.socket = dir.socket()
	m := &master{ssh: &c, as: as, dir: dir, mark: "pfdivert-" + rand.Text()}
	// The terminal's interrupt is this program's to act on: the connection must
	// live until the agent has undone what it did. ssh leaves a signal ignored
	// that was (clientloop.c, "matches behaviour from rsh(1)"), and the terminal is
	// only for processes of the group in the foreground, so that it stays in.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `trap "" INT QUIT HUP; exec "$@"`, "sh", c.path},
		c.args(true, ask, "exec sh")...)...)
	as.apply(cmd)
	if m.link, err = pipedStart(ctx, cmd); err != nil {
		return nil, errors.Join(fmt.Errorf("start ssh: %w", err), dir.remove())
	}
	m.out = bufio.NewReader(m.link.Read)
	return m, nil
}

// pipedStart starts cmd as a Process.
func pipedStart(ctx context.Context, cmd *exec.Cmd) (*Process, error) {
	var p pipes
	defer p.closeTheirs()
	l, err := p.link(&cmd.Stdin, &cmd.Stdout, &cmd.Stderr)
	if err == nil {
		err = start(ctx, cmd, cmd.Start, l)
	}
	if err != nil {
		p.closeOurs()
		return nil, err
	}
	return l, nil
}

// script has the host's sh carry out a script and gives its output and exit
// status. What was printed before it is skipped.
func (m *master) script(ctx context.Context, script string) (string, int, error) {
	m.trips++
	type answer struct {
		out    string
		status int
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		_, a.err = fmt.Fprintf(m.link.Write, "echo; echo %s begin\n{ %s\n} </dev/null\necho; echo %s end $?\n", m.mark,
			script, m.mark)
		if a.err == nil {
			a.out, a.status, a.err = m.answer()
		}
		done <- a
	}()
	select {
	case a := <-done:
		return a.out, a.status, a.err
	case <-ctx.Done():
		m.link.Kill()
		<-done
		return "", 0, context.Cause(ctx)
	}
}

// answer reads up to the end of an answer. The mark begins a line of its own,
// even behind noise that does not end its last line.
func (m *master) answer() (string, int, error) {
	var out strings.Builder
	begun := false
	for n := 0; n < maxAnswer; {
		line, err := m.out.ReadSlice('\n')
		n += len(line)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return "", 0, err
		}
		s := string(line)
		rest, marked := strings.CutPrefix(s, m.mark+" ")
		switch {
		case marked && rest == "begin\n":
			begun = true
		case marked && begun:
			var status int
			if _, err := fmt.Sscanf(rest, "end %d\n", &status); err != nil {
				return "", 0, fmt.Errorf("the host's shell answered %q", s)
			}
			return strings.TrimSuffix(out.String(), "\n"), status, nil
		case begun:
			out.WriteString(s)
		}
	}
	return "", 0, fmt.Errorf("the host's shell answered more than %d bytes", maxAnswer)
}

// command runs one more command through the master. What the login shell's rc
// files print to standard error does not appear in the Process's.
func (m *master) command(ctx context.Context, argv ...string) (*Process, error) {
	m.trips++
	line, err := command(append([]string{"exec", "sh", "-c", "echo " + m.mark + ` >&2; exec "$@"`, "sh"}, argv...)...)
	if err != nil {
		return nil, &Error{Reason: Destination, Host: m.ssh.destination,
			Text: "the command can't be given to its shell", Err: err, hint: "use simple words in SUDO"}
	}
	cmd := exec.Command(m.ssh.path, m.ssh.args(false, false, line)...)
	cmd.SysProcAttr = dieWithParent(syscall.SIGKILL)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // keeps the terminal's signals away
	m.as.apply(cmd)
	l, err := pipedStart(ctx, cmd)
	if err != nil {
		return nil, fmt.Errorf("start ssh: %w", err)
	}
	l.stderr.from(m.mark)
	return l, nil
}

// failed explains why the master's session ended.
func (m *master) failed(err error) error {
	end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if wait := m.link.Wait(end); wait != nil {
		err = wait
	}
	return sshError(m.ssh.destination, m.ssh.login, m.link.Stderr(), err)
}

// close ends the master and removes its folder.
func (m *master) close(ctx context.Context) error {
	m.link.Write.Close()
	if m.link.Wait(ctx); ctx.Err() != nil {
		m.link.Kill()
		m.link.Wait(context.Background())
	}
	m.link.Read.Close()
	return m.dir.remove()
}

// controlPrefix begins the names of folders with a master's socket.
const controlPrefix = "pfdivert-ssh-"

// maxControlPath is the longest ControlPath, in bytes: ssh appends a dot and 16
// random characters while it binds the socket (mux.c, muxserver_listen), and
// sun_path has 104 bytes on the BSDs (unix(4)).
const maxControlPath = 104 - 1 - 17

// controlDir is a private folder for the master's socket. It is locked as long
// as this process lives, so that a later run knows that it is stale.
type controlDir struct {
	path string
	lock *os.File
}

// newControlDir makes one, for the invoker if there is one, and removes those
// that killed runs have left.
func newControlDir(i *Invoker) (*controlDir, error) {
	base := os.TempDir()
	if len(filepath.Join(base, controlPrefix+"0123456789", "m")) > maxControlPath {
		base = "/tmp"
	}
	owner := os.Geteuid()
	if i != nil {
		owner = int(i.UID)
	}
	removeStale(base, owner)
	path, err := os.MkdirTemp(base, controlPrefix) // mode 0700
	if err != nil {
		return nil, fmt.Errorf("folder for ssh's socket: %w", err)
	}
	d := &controlDir{path: path}
	if d.lock, err = os.Open(path); err == nil {
		if err = unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil && i != nil {
			err = d.lock.Chown(owner, int(i.GID))
		}
	}
	if err != nil {
		d.remove()
		return nil, fmt.Errorf("folder for ssh's socket: %w", err)
	}
	return d, nil
}

func (d *controlDir) socket() string { return filepath.Join(d.path, "m") }

func (d *controlDir) remove() error {
	err := os.RemoveAll(d.path)
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}

// removeStale removes the folders of owner whose process is gone. One that is
// a minute old at most may not be locked yet.
func removeStale(base string, owner int) {
	found, _ := filepath.Glob(filepath.Join(base, controlPrefix+"*"))
	for _, path := range found {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != owner {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		f.Close()
	}
}

// Invoker is the user who became root by sudo or doas to start this program. ssh runs as that user,
// with their keys, configuration and known hosts, and writes no file of root's into their home.
type Invoker struct {
	Name     string
	UID, GID uint32
	Groups   []uint32
	Home     string
}

// FindInvoker returns the invoker, as SUDO_UID (sudo) or DOAS_USER (doas) name it. It returns nil
// if this process is not root, or became root in another way.
func FindInvoker(getenv func(string) string) (*Invoker, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	var u *user.User
	var err error
	switch uid, name := getenv("SUDO_UID"), getenv("DOAS_USER"); {
	case uid != "":
		// The passwd entry may be in a database that only libc can ask.
		if u, err = user.LookupId(uid); err != nil && getenv("SUDO_HOME") != "" {
			u, err = &user.User{Uid: uid, Gid: getenv("SUDO_GID"), Username: getenv("SUDO_USER"),
				HomeDir: getenv("SUDO_HOME")}, nil
		}
	case name != "":
		u, err = user.Lookup(name)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the user who called sudo: %w", err)
	}
	i := &Invoker{Name: u.Username, Home: u.HomeDir}
	for _, n := range []struct {
		to   *uint32
		from string
	}{{&i.UID, u.Uid}, {&i.GID, u.Gid}} {
		v, err := strconv.ParseUint(n.from, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("the user who called sudo: %w", err)
		}
		*n.to = uint32(v)
	}
	if i.UID == 0 {
		return nil, nil
	}
	groups, err := u.GroupIds()
	if err != nil {
		groups = nil // the groups matter only for reading keys; the own one does
	}
	for _, g := range groups {
		if v, err := strconv.ParseUint(g, 10, 32); err == nil {
			i.Groups = append(i.Groups, uint32(v))
		}
	}
	return i, nil
}

// apply has cmd run as the invoker.
func (i *Invoker) apply(cmd *exec.Cmd) {
	if i == nil {
		return
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: i.UID, Gid: i.GID, Groups: i.Groups}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "HOME", "USER", "LOGNAME", "MAIL":
		default:
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+i.Home, "USER="+i.Name, "LOGNAME="+i.Name)
	// The current folder may be one that only root may enter.
	cmd.Dir = "/"
}
