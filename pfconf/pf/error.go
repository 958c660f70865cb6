package pf

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Error is a pfctl that failed, or said something that is not known to be
// harmless. It answers nothing about the host.
type Error struct {
	Argv   []string
	Status int    // exit status; 0 is possible
	Stderr string // as printed
	Err    error  // why it could not be run, nil when it was
}

func (e *Error) Error() string {
	what := strings.Join(e.Argv, " ")
	if e.Err != nil {
		return what + ": " + e.Err.Error()
	}
	said := strings.Join(splitLines(e.Stderr), "; ")
	if said == "" {
		said = "it gave no reason"
	}
	return fmt.Sprintf("%s: %s (exit status %d)", what, said, e.Status)
}

func (e *Error) Unwrap() error { return e.Err }

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

// busy tells whether another process had a transaction open on the anchor.
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
