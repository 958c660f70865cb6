package host

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// sudoSays are what sudo (sudo.c, check.c, logging.c), sudo-rs and doas (doas.c)
// write to standard error, first match first.
var sudoSays = []struct {
	part   string
	reason Reason
}{
	{"a password is required", SudoPassword},
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

// The exit statuses of a shell that could not start a command (POSIX, 2.8.2).
const (
	cannotExecute = 126
	notFound      = 127
)

// explain says why a process ended before it was an agent.
func (p *privilege) explain(l *Link, noise []byte, err error) error {
	wait, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	ended := l.Wait(wait)
	said := l.Stderr()
	if len(p.words) > 0 {
		for _, s := range sudoSays {
			if strings.Contains(said, s.part) {
				return p.refused(s.reason, said)
			}
		}
	}
	status := -1
	var exit *exec.ExitError
	if errors.As(ended, &exit) {
		status = exit.ExitCode()
	}
	denied := strings.Contains(said, "ermission denied") || strings.Contains(said, "cannot execute")
	switch {
	case status == notFound && len(p.words) > 0:
		return &Error{Reason: NoSudo, Host: p.host, Text: "there is no " + p.words[0], Err: quoted(said, nil), hint: "SUDO=sudo or SUDO=doas, whichever is installed there"}
	case status == cannotExecute || denied:
		return &Error{Reason: NoExec, Host: p.host, Text: "the copied program may not run", Err: quoted(said, nil),
			hint: "its folder may be mounted noexec, or a security policy of the host forbids programs there"}
	case status == 255 && p.host != "":
		return sshError(p.host, said, ended)
	}
	if ended != nil {
		err = ended
	}
	if len(noise) > 0 {
		said = fmt.Sprintf("%q\n%s", noise, said)
	}
	return &Error{Reason: AgentFailed, Host: p.host, Text: "the agent ended before its first word", Err: quoted(said, err)}
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
		e.Text = p.tool() + " needs a password of " + p.user
		e.hint = "allow it without a password"
	}
	return e
}
