package program

import (
	"fmt"
	"strings"
)

// Failure is a program that failed, or said something that is not known to be
// harmless. It answers nothing about the host.
type Failure struct {
	Argv   []string
	Status int    // exit status; 0 is possible
	Stderr string // as printed
	Err    error  // why it could not be run, nil when it was
}

func (e *Failure) Error() string {
	what := strings.Join(e.Argv, " ")
	if e.Err != nil {
		return what + ": " + e.Err.Error()
	}
	said := strings.Join(Lines(e.Stderr), "; ")
	if said == "" {
		said = "it gave no reason"
	}
	return fmt.Sprintf("%s: %s (exit status %d)", what, said, e.Status)
}

func (e *Failure) Unwrap() error { return e.Err }
