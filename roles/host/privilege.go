package host

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"pfdivert/roles/agent"
)

// agentPatience bounds the time in which a started agent says its first word.
const agentPatience = 30 * time.Second

// personPatience is the same where a person has to type a password meanwhile.
const personPatience = 5 * time.Minute

// maxNoise bounds what may come before that, in bytes.
const maxNoise = 64 << 10

// Ask asks a person for a password on the terminal, without showing it. It is nil where no one can
// be asked.
type Ask func(ctx context.Context, prompt string) (password string, err error)

// privilege is how a command becomes root: the words of $SUDO.
type privilege struct {
	words []string // empty: not at all
	ask   Ask      // nil when no one can be asked
	host  string   // the ssh destination; empty for this machine
	login string   // what follows "ssh" to log in there by hand
	user  string   // whose password is asked for
}

// tool is the command in $SUDO without its folder.
func (p *privilege) tool() string { return path.Base(p.words[0]) }

// argv puts more flags and a command behind the words.
func (p *privilege) argv(command []string, flags ...string) []string {
	if len(p.words) == 0 {
		return command
	}
	a := append([]string{p.words[0]}, flags...)
	return append(append(a, p.words[1:]...), command...)
}

// Privileged starts an agent as root on this machine. argv is its command line, sudo the value of
// $SUDO, which may have arguments and is not used by root. It returns when the agent has written
// its first word; from then on the end of ctx does not affect the agent. ask is nil without a
// terminal.
func Privileged(ctx context.Context, argv []string, sudo string, ask Ask) (*Process, error) {
	words, err := splitWords(sudo)
	if err != nil {
		return nil, &Error{Reason: Destination, Text: fmt.Sprintf("SUDO=%q", sudo), Err: err,
			hint: "SUDO=sudo or SUDO=doas"}
	}
	if os.Geteuid() == 0 {
		words = nil
	}
	p := privilege{words: words, ask: ask, user: ownName()}
	life, reached := startOnly(ctx)
	defer reached()
	return p.start(ctx, argv, func(argv []string) (*Process, error) {
		l, err := Child(life, argv)
		if err != nil && len(words) > 0 {
			return nil, &Error{Reason: NoSudo, Text: "SUDO=" + sudo, Err: err,
				hint: "SUDO=sudo or SUDO=doas, whichever is installed"}
		}
		return l, err
	})
}

// ownName is the name of the user of this process.
func ownName() string {
	return cmp.Or(os.Getenv("LOGNAME"), os.Getenv("USER"), fmt.Sprintf("user %d", os.Getuid()))
}

// startOnly returns a context that ends with ctx until reached is called: what an
// interrupt may break off is the start. Afterwards the agent must undo what it
// did.
func startOnly(ctx context.Context) (life context.Context, reached func()) {
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	return life, func() { stop() }
}

// start starts an agent by run, as root. It tries without a password first
// (-n), and asks for it when it is needed: sudo -S reads it from standard input,
// one line and not a byte more (tgetpass.c), so the agent's stream follows it. It
// is sent only when sudo's prompt has come, because a sudo that asks nothing
// would leave it to the agent.
func (p *privilege) start(ctx context.Context, command []string,
	run func(argv []string) (*Process, error)) (*Process, error) {
	var quiet []string
	if len(p.words) > 0 && (p.tool() == "sudo" || p.tool() == "doas") {
		quiet = []string{"-n"}
	}
	l, err := run(p.argv(command, quiet...))
	if err != nil {
		return nil, err
	}
	err = p.greeted(ctx, l, agentPatience, "", "")
	if needsPassword(err) {
		end(l)
		return p.startAsking(ctx, command, run)
	}
	if err != nil {
		end(l)
		return nil, err
	}
	return l, nil
}

func needsPassword(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Reason == SudoPassword
}

// startAsking is start with a password.
func (p *privilege) startAsking(ctx context.Context, command []string,
	run func(argv []string) (*Process, error)) (*Process, error) {
	needed := &Error{Reason: SudoPassword, Host: p.host, Text: p.tool() + " needs a password of " + p.user}
	if p.tool() == "doas" {
		if p.host == "" && p.ask != nil {
			return p.startOnTerminal(ctx, command, run)
		}
		// doas(1) reads passwords from a terminal only, and the stream has none.
		needed.hint = fmt.Sprintf("allow it without one in doas.conf there: permit nopass %s as root", p.user)
		return nil, needed
	}
	if p.ask == nil {
		needed.Text += ", and there is no terminal to ask on"
		needed.hint = fmt.Sprintf("run it on a terminal, or allow it without a password in sudoers there: %s ALL=(root) NOPASSWD: ALL", p.user)
		return nil, needed
	}
	where := "this machine"
	if p.host != "" {
		where = p.host
	}
	password, err := p.ask(ctx, fmt.Sprintf("password of %s for sudo on %s: ", p.user, where))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		needed.Err, needed.hint = err, "allow it without a password in sudoers there (NOPASSWD)"
		return nil, needed
	}
	if strings.ContainsAny(password, "\n\x00") {
		return nil, &Error{Reason: SudoWrong, Host: p.host, Text: "the password has more than one line"}
	}
	prompt := "[pfdivert-" + rand.Text() + "]"
	l, err := run(p.argv(command, "-S", "-p", prompt))
	if err != nil {
		return nil, err
	}
	l.stderr.from(prompt) // sudo's lecture is before it
	if err := p.greeted(ctx, l, agentPatience, prompt, password); err != nil {
		end(l)
		return nil, err
	}
	return l, nil
}

// startOnTerminal is start where doas asks by itself, on the terminal that it
// shares with this process.
func (p *privilege) startOnTerminal(ctx context.Context, command []string,
	run func(argv []string) (*Process, error)) (*Process, error) {
	l, err := run(p.argv(command))
	if err != nil {
		return nil, err
	}
	if err := p.greeted(ctx, l, personPatience, "", ""); err != nil {
		end(l)
		return nil, err
	}
	return l, nil
}

// end makes sure that a process that is no agent is gone.
func end(l *Process) {
	l.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = l.Wait(ctx) // that of a sudo that waits for its PAM modules ends later
	l.Read.Close()
}

// greeted waits for the agent's first word. When the prompt shows up on standard
// error it answers with the password, once.
func (p *privilege) greeted(ctx context.Context, l *Process, most time.Duration, prompt, password string) error {
	heard := make(chan error, 1)
	read := l.Read
	var noise []byte
	go func() {
		var err error
		noise, err = skipNoise(read)
		heard <- err
	}()
	patience := time.NewTimer(most)
	defer patience.Stop()
	answered := false
	for {
		select {
		case err := <-heard:
			if err != nil {
				return p.explain(l, noise, err)
			}
			l.Read = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(strings.NewReader(agent.Magic), read), read}
			return nil
		case <-l.stderr.more:
			if prompt == "" {
				continue
			}
			switch n := l.stderr.count(prompt); {
			case n > 1:
				return p.wrongPassword()
			case n == 1 && !answered:
				answered = true
				if _, err := io.WriteString(l.Write, password+"\n"); err != nil {
					return fmt.Errorf("give sudo the password: %w", err)
				}
			}
		case <-patience.C:
			return &Error{Reason: AgentFailed, Host: p.host, Text: fmt.Sprintf("the agent said nothing for %v", most),
				Err:  quoted(l.Stderr(), nil),
				hint: "look at the host: it may be overloaded, or hold up what root starts"}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// skipNoise reads up to and with the agent's magic, and nothing behind it. It
// gives what came before.
func skipNoise(r io.Reader) ([]byte, error) {
	magic := []byte(agent.Magic)
	var noise []byte
	b := make([]byte, 1)
	for len(noise) < maxNoise {
		if _, err := r.Read(b); err != nil {
			return noise, err
		}
		if noise = append(noise, b[0]); bytes.HasSuffix(noise, magic) {
			return noise[:len(noise)-len(magic)], nil
		}
	}
	return noise, fmt.Errorf("%d bytes without an agent's first word", maxNoise)
}

func (p *privilege) wrongPassword() error {
	return &Error{Reason: SudoWrong, Host: p.host, Text: p.tool() + " did not take the password of " + p.user,
		hint: "it wants the password of " + p.user + " there, not that of root; run it again"}
}
