package pf

import (
	"errors"
	"io/fs"
	"os/exec"
	"strings"

	"pfdivert/pfconf/program"
)

// What runs pfctl.
type (
	Command = program.Command
	Result  = program.Output
	Runner  = program.Runner
)

// Error is a pfctl that failed, or said something that is not known to be
// harmless.
type Error struct{ program.Failure }

// Hint says what can be done about it, "" when that is not known.
func (e *Error) Hint() string {
	switch {
	case errors.Is(e.Err, exec.ErrNotFound):
		return "is this an OpenBSD? The pf rules are made with pfctl(8)"
	case strings.Contains(e.Stderr, "Permission denied"):
		return "pfctl needs root: run the agent as root, or set SUDO to sudo or doas"
	case strings.Contains(e.Stderr, "/dev/pf: "):
		return "this kernel offers no pf here: is it loaded, and /dev/pf visible in this jail?"
	case e.busy():
		return "another pfctl is loading the same anchor: is a second run, or a script of the host, using it?"
	}
	return ""
}

// Absent reports whether there is no pf on the host, or no pfctl.
func (e *Error) Absent() bool {
	return errors.Is(e.Err, exec.ErrNotFound) || errors.Is(e.Err, fs.ErrNotExist) ||
		strings.Contains(e.Stderr, "/dev/pf: No such file or directory")
}

// busy reports whether another process had a transaction open on the anchor.
func (e *Error) busy() bool {
	return e.Status != 0 && strings.Contains(e.Stderr, ": Device busy")
}

// hinted is an error with what can be done about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string  { return h.hint }
func (h hinted) Unwrap() error { return h.error }
