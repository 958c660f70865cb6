package host

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// SSHOptions are how SSH reaches a host.
type SSHOptions struct {
	// Destination is what the user would give to ssh: root@pfhost, an alias.
	Destination string
	// Options is $SSH_OPTIONS, which every ssh gets, split like a shell's words.
	Options string
	// Sudo is $SUDO: what makes root there if the user is not, with its
	// arguments. Empty: nothing.
	Sudo string
	// Args are the arguments that make the program an agent. The folder that it
	// must remove at its end follows, as "-remove" DIR (RemoveOwn), unless it
	// was kept.
	Args []string
	// Keep leaves the program in ~/.cache/pfdivert there for later runs.
	Keep bool
	// Dist are the folders with binaries for other systems (DistFolders).
	Dist []string
	// Ask asks for a password on the terminal; nil when there is none. Then ssh
	// does not ask for anything either.
	Ask Ask
	// Doing is told what takes its time.
	Doing func(what string)
	// Invoker is the user as whom ssh runs; nil: this process's.
	Invoker *Invoker
}

// Remote is an agent that was reached by ssh, with what is known of its host.
type Remote struct {
	*Process
	GOOS, GOARCH string
	User         string            // who logged in
	UID          int               // of User; the agent is root
	Tools        map[string]string // which of sudo, doas, gzip, pfctl, nft, kdump there are, with their paths
	Want         string            // the sha256 that the agent's hello must show
	Sent         int64             // bytes of the program that were sent, as they were on the way
	Cached       bool              // the program was there already
	Trips        int               // how often something was sent and its answer awaited, the login being one

	host   string
	master *master
	dir    string // that of the probe
}

// SSH reaches a host by the user's own ssh, copies a binary for its system, and starts the agent
// there. It returns when the agent has written its first word. When ctx ends before that, SSH gives
// up; later it does not affect the connection, which Close ends. Errors are of type *Error.
func SSH(ctx context.Context, o SSHOptions) (_ *Remote, err error) {
	c, p, err := o.commands()
	if err != nil {
		return nil, err
	}
	life, reached := startOnly(ctx)
	defer reached()
	m, err := startMaster(life, c, o.Invoker, o.Ask != nil)
	if err != nil {
		return nil, err
	}
	r := &Remote{host: o.Destination, master: m}
	defer func() {
		if err != nil {
			end, cancel := context.WithTimeout(context.Background(), endPatience)
			defer cancel()
			_ = m.close(end) // its shell removes the folder
		}
	}()
	facts, err := r.look(ctx, o, &p)
	if err != nil {
		return nil, err
	}
	b, err := findBinary(r.GOOS, r.GOARCH, o.Dist)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.Host = o.Destination
			return nil, e
		}
		return nil, fmt.Errorf("the program for %s: %w", o.Destination, err)
	}
	r.Want = b.sum
	path, err := r.placed(ctx, o, &p, b, facts)
	if err != nil {
		return nil, err
	}
	argv := append([]string{path}, o.Args...)
	if strings.HasPrefix(path, r.dir+"/") {
		argv = append(argv, "-remove", r.dir)
	}
	r.Process, err = p.start(ctx, argv, func(argv []string) (*Process, error) {
		return m.command(life, argv...)
	})
	r.Trips = m.trips + 1
	return r, err
}

// endPatience bounds the orderly end of a connection.
const endPatience = 10 * time.Second

// commands checks the options.
func (o *SSHOptions) commands() (c sshCommand, p privilege, err error) {
	wrong := func(text, hint string, err error) (sshCommand, privilege, error) {
		return c, p, &Error{Reason: Destination, Host: "", Text: text, Err: err, hint: hint}
	}
	if o.Destination == "" || strings.HasPrefix(o.Destination, "-") || strings.ContainsAny(o.Destination, " \t\n\x00") {
		return wrong(fmt.Sprintf("REMOTE_SSH=%q is no ssh destination", o.Destination), "REMOTE_SSH=root@pfhost", nil)
	}
	c.destination = o.Destination
	if c.options, err = splitWords(o.Options); err != nil {
		return wrong(fmt.Sprintf("SSH_OPTIONS=%q", o.Options), "SSH_OPTIONS='-p 2222 -i KEYFILE'", err)
	}
	c.login = strings.TrimSpace(o.Options + " " + o.Destination)
	p = privilege{ask: o.Ask, host: o.Destination, login: c.login}
	if p.words, err = splitWords(o.Sudo); err != nil {
		return wrong(fmt.Sprintf("SUDO=%q", o.Sudo), "SUDO=sudo or SUDO=doas", err)
	}
	if c.path, err = exec.LookPath("ssh"); err != nil {
		return c, p, &Error{Reason: NoSSH, Text: "this machine has no ssh", Err: err,
			hint: "install OpenSSH's client (openssh-client, openssh)"}
	}
	return c, p, nil
}

// look probes the host. There is no room in the folders that are full.
func (r *Remote) look(ctx context.Context, o SSHOptions, p *privilege, full ...string) (*hostFacts, error) {
	keep := ""
	if o.Keep {
		keep = "yes"
	}
	out, _, err := r.master.script(ctx, probeOf(keep, full))
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", r.host, err)
		}
		return nil, r.master.failed(err)
	}
	f, err := parseFacts(out)
	if err != nil {
		return nil, &Error{Reason: NoShell, Host: r.host, Text: "its shell is none that this program knows", Err: err,
			hint: "the host needs a POSIX sh, uname and id"}
	}
	r.dir, r.User, r.UID, r.Tools = f.dir, f.user, f.uid, f.tools
	var known bool
	if r.GOOS, known = goos[f.system]; known {
		r.GOARCH, known = goarch[f.machine]
	}
	if !known {
		return nil, &Error{Reason: SystemOther, Host: r.host,
			Text: fmt.Sprintf("it is a %s on %s, for which there is no program", f.system, f.machine),
			hint: "OpenBSD, FreeBSD and Linux can be tested, on amd64, arm64 and i386"}
	}
	p.user = f.user
	switch {
	case f.uid == 0:
		p.words = nil
	case len(p.words) == 0:
		return nil, &Error{Reason: NotRoot, Host: r.host, Text: f.user + " is not root there",
			hint: "log in as root, or set SUDO=sudo or SUDO=doas"}
	default:
		// sudo may be where the login shell does not look.
		if path, ok := f.tools[p.words[0]]; ok {
			p.words[0] = path
		} else if p.words[0] == "sudo" || p.words[0] == "doas" {
			return nil, &Error{Reason: NoSudo, Host: r.host, Text: "there is no " + p.words[0], hint: otherTool(f)}
		}
	}
	return &f, nil
}

// probeOf is the probe, with what is replaced in it.
func probeOf(keep string, full []string) string {
	return strings.NewReplacer("keep=KEEP", "keep="+keep, "' FULL '", "' "+strings.Join(full, " ")+" '").Replace(probe)
}

func otherTool(f hostFacts) string {
	for _, t := range []string{"doas", "sudo"} {
		if f.tools[t] != "" {
			return "there is " + t + ": SUDO=" + t
		}
	}
	return "log in as root, or install sudo or doas there"
}

// CheckSum returns an error unless sum, from the agent's hello, is the sha256 of the program that
// was copied.
func (r *Remote) CheckSum(sum string) error {
	if sum == r.Want {
		return nil
	}
	hint := "run it again; if that does not help, something changes files on the way or there"
	if r.Cached {
		hint = fmt.Sprintf("the kept copy was changed; remove it: ssh %s rm -r .cache/pfdivert", r.master.ssh.login)
	}
	return &Error{Reason: WrongSum, Host: r.host, Text: fmt.Sprintf("the agent's sha256 is %q, not %s", sum, r.Want),
		hint: hint}
}

// Close tells the agent to end, waits for it until ctx is done, and ends the connection. It returns
// an error if the files that were copied for this run may still be there.
func (r *Remote) Close(ctx context.Context) error {
	_ = r.Process.Write.Close()
	if err := r.Process.Wait(ctx); err != nil && ctx.Err() != nil {
		r.Process.Kill()
	}
	defer r.Process.Read.Close()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
	defer cancel()
	var left error
	if r.dir != "" {
		// An agent that was killed has not removed it.
		_, status, err := r.master.script(end, `test -z "$dir" || rm -rf "$dir"; test ! -e "$dir"`)
		if err != nil || status != 0 {
			left = &Error{Reason: Left, Host: r.host, Text: "the copied program may still be there", Err: err,
				hint: fmt.Sprintf("ssh %s rm -r %s", r.master.ssh.login, r.dir)}
		}
	}
	return errors.Join(left, r.master.close(end))
}

// sshCommand is how ssh(1) is called for one host.
type sshCommand struct {
	path        string   // of ssh
	options     []string // of the user
	destination string
	login       string // what follows "ssh" to log in by hand
	socket      string // the master's
}

// ours are the settings that the data stream depends on. They come first,
// because ssh_config(5) gives the first value that is met. RemoteCommand wants
// OpenSSH 7.6 (2017).
var ours = []string{
	"-o", "RemoteCommand=none",
	"-o", "PermitLocalCommand=no",
	"-o", "ClearAllForwardings=yes",
	"-o", "Tunnel=no",
	"-o", "ControlPersist=no",
}

// defaults come after the user's options, which may say otherwise. A network
// that is gone is noticed after 15 s.
var defaults = []string{
	"-o", "ConnectTimeout=20",
	"-o", "ServerAliveInterval=5",
	"-o", "ServerAliveCountMax=3",
}

// args are the arguments of ssh for a command of the remote login shell. The
// first call becomes the master, the later ones go through it and never ask
// anything. The flags at the end win over the user's.
func (c *sshCommand) args(master, ask bool, command string) []string {
	a := append([]string{}, ours...)
	if !ask {
		a = append(a, "-o", "BatchMode=yes")
	}
	if master {
		a = append(a, "-o", "ControlMaster=yes")
	} else {
		a = append(a, "-o", "ControlMaster=no")
	}
	a = append(a, c.options...)
	a = append(a, defaults...)
	return append(a, "-S", c.socket, "-T", "-x", "-a", "--", c.destination, command)
}

// splitWords splits like a shell, as far as words, blanks, quotes and
// backslashes go: $SSH_OPTIONS and $SUDO.
func splitWords(s string) ([]string, error) {
	var words []string
	var word []byte
	var in, quote bool // in a word; behind a backslash
	var mark byte      // the quote that is open
	for _, c := range []byte(s) {
		switch {
		case quote:
			if mark == '"' && !strings.ContainsRune("\"\\$`", rune(c)) {
				word = append(word, '\\')
			}
			word, quote = append(word, c), false
		case c == '\\' && mark != '\'':
			in, quote = true, true
		case mark != 0:
			if c == mark {
				mark = 0
			} else {
				word = append(word, c)
			}
		case c == '\'' || c == '"':
			in, mark = true, c
		case c == ' ' || c == '\t' || c == '\n':
			if in {
				words = append(words, string(word))
			}
			word, in = word[:0], false
		default:
			in, word = true, append(word, c)
		}
	}
	switch {
	case mark != 0:
		return nil, fmt.Errorf("the quote %c is not closed", mark)
	case quote:
		return nil, errors.New("nothing follows the backslash at the end")
	case in:
		words = append(words, string(word))
	}
	return words, nil
}

// command joins words to a command that sh, csh and fish understand alike.
// Within single quotes they differ on quotes, backslashes, line ends and
// csh's '!'.
func command(words ...string) (string, error) {
	quoted := make([]string, len(words))
	for i, w := range words {
		switch {
		case strings.ContainsAny(w, "'\\!\n\x00"):
			return "", fmt.Errorf("%q has a character that not all login shells take alike", w)
		case w != "" && plain(w):
			quoted[i] = w
		default:
			quoted[i] = "'" + w + "'"
		}
	}
	return strings.Join(quoted, " "), nil
}

// plain reports whether no shell sees anything but letters in s. The probe has
// the same list.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			strings.IndexByte("/._@+-", c) >= 0) {
			return false
		}
	}
	return true
}
