package host

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// Reason is a code for why a host cannot be reached or used. Codes never change.
type Reason string

// The reasons.
const (
	NoSSH        Reason = "no-ssh"             // this machine has no ssh
	Destination  Reason = "destination"        // it, SSH_OPTIONS or SUDO can't be understood
	HostKey      Reason = "host-key-unknown"   //
	HostKeyNew   Reason = "host-key-changed"   //
	KeyRefused   Reason = "login-refused"      // no key or password was accepted
	Unreachable  Reason = "host-unreachable"   //
	NoShell      Reason = "no-shell"           // logged in, but commands are not carried out
	SystemOther  Reason = "system-unsupported" // no such binary is built
	NoBinary     Reason = "binary-missing"     // for the remote's system, on this machine
	NoFolder     Reason = "no-folder"          // none on the host takes a file
	NoExec       Reason = "noexec"             // none on the host lets a program run
	DiskFull     Reason = "disk-full"          //
	WrongSum     Reason = "wrong-sha256"       //
	NotRoot      Reason = "not-root"           // and SUDO is not set
	NoSudo       Reason = "sudo-missing"       // the command in SUDO is not there
	SudoDenied   Reason = "sudo-denied"        // the user has no right
	SudoPassword Reason = "sudo-password"      // one is needed and no one can be asked
	SudoWrong    Reason = "sudo-wrong"         // the password was wrong
	SudoTTY      Reason = "sudo-requiretty"    //
	AgentFailed  Reason = "agent-failed"       // it was started and ended at once
	Lost         Reason = "connection-lost"    //
	Left         Reason = "left-behind"        // the copied file may still be there
)

// Error is why a host could not be reached or used.
type Error struct {
	Reason Reason
	Host   string // the ssh destination, empty for this machine
	Text   string
	hint   string
	Err    error // may be nil
}

func (e *Error) Error() string {
	s := e.Text
	if e.Host != "" {
		s = e.Host + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Hint returns what to do about it.
func (e *Error) Hint() string { return e.hint }

func (e *Error) Unwrap() error { return e.Err }

// sshSays are what OpenSSH writes to standard error before it ends with 255 (sshconnect.c,
// sshconnect2.c, ssh.c, clientloop.c, kex.c), first match first. In the hints, LOGIN are the
// words that log in by hand, and HOST the host's name in known_hosts.
var sshSays = []struct {
	part       string
	reason     Reason
	text, hint string
}{
	{"has changed and you have requested strict checking", HostKeyNew, "its host key is not the one known before",
		"find out why it changed; if it is right: ssh-keygen -R 'HOST', and log in once by hand: ssh LOGIN"},
	{"Host key verification failed", HostKey, "its host key is not known here",
		"log in once by hand and compare the key's fingerprint: ssh LOGIN"},
	{"No matching host key fingerprint", HostKey, "its host key is not known here",
		"log in once by hand and compare the key's fingerprint: ssh LOGIN"},
	{"Too many authentication failures", KeyRefused, "it accepted none of the keys it was offered",
		"name the right key: SSH_OPTIONS='-o IdentitiesOnly=yes -i KEYFILE', and try: ssh LOGIN true"},
	{"Permission denied (", KeyRefused, "it accepts no key of this user",
		"put your public key there by 'ssh-copy-id LOGIN', or name the right one: SSH_OPTIONS='-i KEYFILE'; 'ssh LOGIN true' must work"},
	{"Could not resolve hostname", Unreachable, "its name is not known",
		"check the name in REMOTE_SSH; 'ssh LOGIN true' must work"},
	{"connect to host", Unreachable, "it does not answer",
		"check that the host is up, sshd runs there and nothing filters the port; 'ssh LOGIN true' must work"},
	{"banner exchange", Unreachable, "it does not answer as ssh",
		"check the port and the ProxyCommand or ProxyJump; 'ssh LOGIN true' must work"},
	{"kex_exchange_identification", Unreachable, "it does not answer as ssh",
		"check the port and the ProxyCommand or ProxyJump; 'ssh LOGIN true' must work"},
	{"command-line: ", Destination, "ssh does not take the options",
		"look at SSH_OPTIONS; 'ssh LOGIN true' must work"},
	{"Bad configuration option", Destination, "ssh does not take its configuration",
		"look at SSH_OPTIONS and ~/.ssh/config; 'ssh LOGIN true' must work"},
	{"jumphost loop via ", Destination, "the jump host is to be reached by way of itself",
		"leave -J or ProxyJump out for one of the hosts, in SSH_OPTIONS or ~/.ssh/config; 'ssh LOGIN true' must work"},
	{"not responding", Lost, "the connection was lost", "check the network to the host"},
	{"Broken pipe", Lost, "the connection was lost", "check the network to the host"},
	{"Connection reset by", Unreachable, "it broke the connection off",
		"look at the log of its sshd; 'ssh LOGIN true' must work"},
	{"Connection closed by", Unreachable, "it broke the connection off",
		"look at the log of its sshd; 'ssh LOGIN true' must work"},
}

// changedKey is how ssh names the host, as known_hosts does, whose key is another.
var changedKey = regexp.MustCompile(`Host key for (\S+) has changed`)

// sshError explains the end of an ssh that did not get as far as a shell. login are the words
// behind ssh that log in on the host, said is its standard error, err what happened to the
// process.
func sshError(host, login, said string, err error) *Error {
	for _, s := range sshSays {
		if strings.Contains(said, s.part) {
			line := lineWith(said, s.part)
			hint := strings.ReplaceAll(s.hint, "LOGIN", login)
			if m := changedKey.FindStringSubmatch(line); m != nil {
				hint = strings.ReplaceAll(hint, "HOST", m[1])
			}
			return &Error{Reason: s.reason, Host: host, Text: s.text, hint: hint, Err: quoted(line, nil)}
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == sshFailed {
		return &Error{Reason: Destination, Host: host, Text: "ssh did not log in", Err: quoted(said, err),
			hint: fmt.Sprintf("look at REMOTE_SSH, SSH_OPTIONS and ~/.ssh/config; 'ssh %s true' must work", login)}
	}
	return &Error{Reason: NoShell, Host: host, Text: "no shell answered", Err: quoted(said, err),
		hint: fmt.Sprintf("the account needs a login shell that carries out commands; 'ssh %s uname -a' must work", login)}
}

// sshFailed is the exit status of an ssh that has an error of its own (ssh(1)).
const sshFailed = 255

// lineWith returns the line that has the part; greetings and warnings around it
// help no one.
func lineWith(said, part string) string {
	for line := range strings.Lines(said) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return said
}

// saidError is what a program wrote to standard error.
type saidError struct {
	said string
	err  error
}

func (e *saidError) Error() string {
	switch {
	case e.said == "":
		return e.err.Error()
	case e.err == nil:
		return "it said: " + e.said
	}
	return e.err.Error() + "; it said: " + e.said
}

func (e *saidError) Unwrap() error { return e.err }

// quoted is an error with what was said with it, nil if there is neither.
func quoted(said string, err error) error {
	said = strings.TrimSpace(said)
	if said == "" && err == nil {
		return nil
	}
	return &saidError{said, err}
}

// sudoSays are what sudo (sudo.c, check.c, logging.c), sudo-rs and doas (doas.c)
// write to standard error, first match first.
var sudoSays = []struct {
	part   string
	reason Reason
}{
	{"a password is required", SudoPassword},
	{"a terminal is required", SudoPassword},
	{"authentication is required", SudoPassword}, // sudo-rs
	{"Authentication required", SudoPassword},    // doas
	{"Authorization required", SudoPassword},     // doas of OpenBSD 5.8 to 6.0
	{"a tty is required", SudoPassword},          // doas
	{"must have a tty", SudoTTY},
	{"incorrect password attempt", SudoWrong},
	{"incorrect authentication attempt", SudoWrong}, // sudo-rs
	{"no password was provided", SudoWrong},
	{"Authentication failed", SudoWrong}, // doas
	{"is not in the sudoers file", SudoDenied},
	{"is not allowed to", SudoDenied},
	{"may not run sudo", SudoDenied},
	{"I'm afraid I can't do that", SudoDenied}, // sudo-rs
	{"not permitted", SudoDenied},              // doas: EPERM
	{"effective uid is not 0", SudoDenied},
	{"not setuid", SudoDenied},          // doas
	{"no new privileges", SudoDenied},   // in a container
	{"account validation", SudoDenied},  // PAM's account stage
	{"Account expired", SudoDenied},     //
	{"doas is not enabled", SudoDenied}, // no doas.conf
}

// SudoError returns why $SUDO started nothing on this machine, by what it wrote to standard
// error; nil when it is not why.
func SudoError(sudo []string, said string) error {
	if reason := refusal(said); reason != "" && len(sudo) > 0 {
		p := privilege{words: sudo, user: ownName()}
		return p.refused(reason, said)
	}
	return nil
}

// refusal returns why sudo or doas refused, by what it said, "" when it did not.
func refusal(said string) Reason {
	for _, s := range sudoSays {
		if strings.Contains(said, s.part) {
			return s.reason
		}
	}
	return ""
}

// The exit statuses of a shell that could not start a command (POSIX, 2.8.2).
const (
	cannotExecute = 126
	notFound      = 127
)

// explain says why a process ended before it was an agent.
func (p *privilege) explain(l *Process, noise []byte, err error) error {
	wait, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	ended := l.Wait(wait)
	said := l.Stderr()
	if reason := refusal(said); reason != "" && len(p.words) > 0 {
		return p.refused(reason, said)
	}
	status := -1
	var exit *exec.ExitError
	if errors.As(ended, &exit) {
		status = exit.ExitCode()
	}
	denied := strings.Contains(said, "ermission denied") || strings.Contains(said, "cannot execute")
	switch {
	case status == notFound && len(p.words) > 0:
		return &Error{Reason: NoSudo, Host: p.host, Text: "there is no " + p.words[0], Err: quoted(said, nil),
			hint: "SUDO=sudo or SUDO=doas, whichever is installed there"}
	case status == cannotExecute || denied:
		return &Error{Reason: NoExec, Host: p.host, Text: "the copied program may not run", Err: quoted(said, nil),
			hint: "its folder may be mounted noexec, or a security policy of the host forbids programs there"}
	case status == sshFailed && p.host != "":
		return sshError(p.host, p.login, said, ended)
	}
	if ended != nil {
		err = ended
	}
	if len(noise) > 0 {
		said = fmt.Sprintf("%q\n%s", noise, said)
	}
	return &Error{Reason: AgentFailed, Host: p.host, Text: "the agent ended before its first word",
		Err: quoted(said, err)}
}

// refused is why sudo or doas did not start the agent.
func (p *privilege) refused(reason Reason, said string) error {
	e := &Error{Reason: reason, Host: p.host, Err: quoted(said, nil)}
	switch reason {
	case SudoWrong:
		return p.wrongPassword()
	case SudoTTY:
		e.Text = "sudo wants a terminal, and the agent's stream can have none"
		e.hint = fmt.Sprintf("add to sudoers there: Defaults:%s !requiretty", p.user)
	case SudoDenied:
		e.Text = fmt.Sprintf("%s has no right to become root by %s", p.user, p.tool())
		e.hint = fmt.Sprintf("add to sudoers there: %s ALL=(root) NOPASSWD: ALL", p.user)
		if p.tool() == "doas" {
			e.hint = fmt.Sprintf("add to doas.conf there: permit nopass %s as root", p.user)
		}
	case SudoPassword:
		e.Text = p.tool() + " needs a password of " + p.user + ", and there is no terminal to ask on"
		e.hint = fmt.Sprintf("run it on a terminal, or allow it without a password in sudoers: %s ALL=(root) NOPASSWD: ALL", p.user)
	}
	return e
}
