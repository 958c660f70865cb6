// Package terminal is what a person at a terminal sees of a failure and is asked: errors with
// hints, and passwords.
package terminal

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"pfdivert/roles/agent"
)

// hinted is an error with what to do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string  { return h.hint }
func (h hinted) Unwrap() error { return h.error }

// WithHint returns err with a hint, which PrintError prints below it: a command or a change that
// the reader can type as it stands.
func WithHint(err error, hint string) error { return hinted{err, hint} }

// PrintError writes "error: " and err to w, and "hint: " and its hint if it has one.
func PrintError(w io.Writer, err error) {
	fmt.Fprintf(w, "error: %v\n", err)
	if hint := agent.HintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", asCalled(hint, callName()))
	}
}

// callName returns how a shell finds this program: by its name, or else by how it was started.
func callName() string {
	const name = "pfdivert"
	if path, err := exec.LookPath(name); err == nil {
		found, err1 := os.Stat(path)
		this, err2 := os.Stat(os.Args[0])
		if err1 == nil && err2 == nil && os.SameFile(found, this) {
			return name
		}
	}
	return os.Args[0]
}

// asCalled returns a text with its commands of this program as they can be typed where it is called
// name, a path such as ./pfdivert.
func asCalled(text, name string) string {
	if filepath.Base(name) != "pfdivert" || !strings.Contains(name, "/") {
		return text
	}
	text = strings.ReplaceAll(text, "'pfdivert ", "'"+name+" ")
	if rest, ok := strings.CutPrefix(text, "pfdivert "); ok {
		text = name + " " + rest
	}
	return text
}
