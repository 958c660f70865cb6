package ipfw

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"pfdivert/pfconf/program"
)

// Control asks a host's ipfw and changes it.
type Control struct{ run program.Runner }

// NewControl makes a Control. Run nil means program.Exec.
func NewControl(run program.Runner) *Control {
	if run == nil {
		run = program.Exec
	}
	return &Control{run}
}

// tool runs a program and returns what it printed. An exit status other than 0 is an
// error, and so is anything on stderr.
func (c *Control) tool(ctx context.Context, stdin string, argv ...string) (string, error) {
	r, err := c.run(ctx, program.Command{Argv: argv, Stdin: stdin})
	if err != nil {
		return "", &Error{program.Failure{Argv: argv, Err: err}}
	}
	if r.Status != 0 || r.Stderr != "" {
		return "", &Error{program.Failure{Argv: argv, Status: r.Status, Stderr: r.Stderr}}
	}
	return r.Stdout, nil
}

func (c *Control) ipfw(ctx context.Context, stdin string, args ...string) (string, error) {
	return c.tool(ctx, stdin, append([]string{"ipfw"}, args...)...)
}

var badLine = regexp.MustCompile(`(?m)^Line ([0-9]+): `)

// do runs the commands of a text, a line each, up to the first that fails.
func (c *Control) do(ctx context.Context, commands string) (string, error) {
	out, err := c.ipfw(ctx, commands, "/dev/stdin")
	var e *Error
	if errors.As(err, &e) {
		if m := badLine.FindStringSubmatch(e.Stderr); m != nil {
			lines := strings.Split(commands, "\n")
			if n, errN := strconv.Atoi(m[1]); errN == nil && 0 < n && n <= len(lines) {
				err = fmt.Errorf("%q: %w", lines[n-1], err)
			}
		}
	}
	return out, err
}

// sysctl reads a number.
func (c *Control) sysctl(ctx context.Context, name string) (int, error) {
	out, err := c.tool(ctx, "", "sysctl", "-n", name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		return 0, fmt.Errorf("sysctl -n %s: not understood: %.80q", name, out)
	}
	return n, nil
}

func (c *Control) setSysctl(ctx context.Context, name string, value int) error {
	_, err := c.tool(ctx, "", "sysctl", fmt.Sprintf("%s=%d", name, value))
	return err
}

// Error is an ipfw or a sysctl that failed, or said something that is not known to be
// harmless.
type Error struct{ program.Failure }

// unloaded reports whether an error means that the kernel has no ipfw: then neither the socket
// option (raw_ip.c) nor the sysctls are there.
func unloaded(err error) bool {
	var e *Error
	return errors.As(err, &e) &&
		(strings.Contains(e.Stderr, "Protocol not available") || unknownOID.MatchString(e.Stderr))
}

var unknownOID = regexp.MustCompile(`unknown oid 'net\.inet6?\.ip6?\.fw\.`)

// loadHint warns of what befalls who loads ipfw over the network.
const loadHint = "load it so that it lets all pass that no rule is for, or it cuts you off: " +
	"kenv net.inet.ip.fw.default_to_accept=1 && kldload ipfw ipdivert"

// Hint says what can be done about it, "" when that is not known.
func (e *Error) Hint() string {
	switch {
	case errors.Is(e.Err, exec.ErrNotFound):
		return "is this a FreeBSD? The rules are made with ipfw(8)"
	case strings.Contains(e.Stderr, "socket: Operation not permitted"):
		return "ipfw needs root: run the agent as root, or set SUDO to sudo or doas (in a jail: one with vnet)"
	case unloaded(e):
		return "ipfw is not in this kernel; " + loadHint
	case strings.Contains(e.Stderr, "IP_FW_XADD): Invalid argument"):
		return "is divert(4) loaded? kldload ipdivert"
	case strings.Contains(e.Stderr, "Operation not permitted"):
		return "it takes root, and kern.securelevel below 3"
	}
	return ""
}

// hinted is an error with what can be done about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string  { return h.hint }
func (h hinted) Unwrap() error { return h.error }
