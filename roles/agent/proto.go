// Package agent is the part of the program that works on a tested host: it
// opens the sockets of cells, loads rules and reads states there, at the
// request of an orchestrator that holds the other end of its standard input
// and output. Both ends of that connection are here: Serve and Conn.
package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/evidence"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/lab/bsd"
	"pfdivert/roles/socket"
)

// Magic precedes the hello. What a login shell prints before it (rc files, a greeting) is skipped;
// Magic has a NUL byte, which such noise has not.
const Magic = "\x00pfdivert agent\n"

// Protocol is the version of requests and answers. Both ends are the same program, copied for the
// run; another version means that an old copy answered.
const Protocol = 2

// Hello is what an agent writes first, unasked.
type Hello struct {
	Protocol int
	GOOS     string
	GOARCH   string
	Kernel   string // uname's name and release
	System   string // uname's version
	Host     string
	PID      int
	Euid     int
	// SHA256 of the agent's own executable, in hexadecimal; empty in the lab, where it is
	// the orchestrator's by construction.
	SHA256 string
	// NoFamily says of each address family that the host lacks why that is
	// known, in words that name the probe.
	NoFamily map[pfconf.Family]string
	// Failed is why the agent can't work; it ends after such a hello.
	Failed *script.Error
}

// Request asks the agent for one thing: exactly one of the pointers is set.
type Request struct {
	ID     uint64
	Ping   *Ping
	Setup  *script.Setup
	Script *script.Script
	Rules  *Rules
	Log    *LogRequest
	Look   *EvidenceRequest
	// Check asks whether the host can be made what the Setup says. It changes nothing.
	Check   *script.Setup
	Cleanup *Tidy
	Lab     *LabRequest
	Bye     *Bye
}

// Ping is the heartbeat.
type Ping struct{}

// Bye asks the agent to undo all its changes and to answer when that is done. The agent ends when
// its input ends, with or without Bye.
type Bye struct{}

// Tidy asks the agent to undo what killed agents left on its host, or with Look only to report it.
type Tidy struct {
	Look bool
}

// LabRequest asks the agent to build a lab on its host, which stands until the agent undoes its
// changes.
type LabRequest struct {
	Config bsd.Layout
	// By and WaitSeconds are as in Setup; who is waited for is another lab on this host.
	By          string
	WaitSeconds int
}

// Hinter is an error with a hint: what its reader can do about it.
type Hinter interface{ Hint() string }

// HintOf returns the outermost hint in err's tree, or else what helps against the system's own
// error in it; "" if neither is known.
func HintOf(err error) string {
	var hinter Hinter
	var fault *script.Error // a field, because it travels
	var path *fs.PathError
	switch {
	case errors.As(err, &hinter):
		return hinter.Hint()
	case errors.As(err, &fault):
		return fault.Hint
	case errors.Is(err, unix.EMFILE):
		return "in a new shell, or as root: ulimit -n 1024"
	case !errors.As(err, &path):
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EROFS):
		full := !errors.Is(err, unix.EROFS)
		switch {
		case temporary(path.Path) && full:
			return "make room there, or name another folder for temporary files: TMPDIR=/DIR"
		case temporary(path.Path):
			return "name another folder for temporary files: TMPDIR=/DIR"
		case full:
			return "see how full it is, and make room there: df " + filepath.Dir(path.Path)
		}
	case path.Op == "fork/exec" && errors.Is(err, unix.EAGAIN):
		return "in a new shell, or as root: ulimit -u 1024; in a container, pids.max of its cgroup counts too"
	case strings.HasPrefix(path.Path, "/proc/") && errors.Is(err, fs.ErrNotExist):
		return "mount -t proc proc /proc"
	}
	return ""
}

// temporary reports whether a path is that of one of this program's temporary files: TMPDIR decides
// where they are.
func temporary(path string) bool {
	rest, ok := strings.CutPrefix(path, filepath.Clean(os.TempDir())+"/")
	return ok && strings.HasPrefix(rest, "pfdivert")
}

// ErrorOf returns an error in the form in which it travels, nil for nil.
func ErrorOf(err error) *script.Error {
	if err == nil {
		return nil
	}
	var f *script.Error
	if errors.As(err, &f) {
		return f
	}
	f = &script.Error{Code: script.CodeOther, Text: err.Error()}
	f.Hint = HintOf(err)
	var errno syscall.Errno
	var missing interface{ Missing() string }
	var engine *pfconf.EngineError
	switch {
	case errors.As(err, &engine):
		f.Code, f.Text = script.CodeUnsupported, engine.Error()
	case errors.As(err, &missing):
		f.Code = script.CodeMissing
	case errors.Is(err, socket.ErrNothing):
		f.Code = script.CodeNothing
	case errors.Is(err, io.EOF):
		f.Code = script.CodeEOF
	case errors.Is(err, socket.ErrUnsupported):
		f.Code = script.CodeUnsupported
	case errors.Is(err, socket.ErrNoSocket):
		f.Code = script.CodeNoSocket
	case errors.Is(err, pfconf.ErrNoState):
		f.Code = script.CodeNoState
	case errors.As(err, &errno):
		if name := unix.ErrnoName(errno); name != "" {
			f.Code = name
		}
	}
	return f
}

// Rules asks for changes of the rule set. They are made together where the filter can; each has its
// own answer.
type Rules struct {
	Changes []script.RuleChange
}

// LogRequest asks for the transcripts of a cell.
type LogRequest struct {
	Cell string
}

// EvidenceRequest asks for the evidence that the host has of a cell.
type EvidenceRequest struct {
	Cell   string
	Labels []string      // of its rules, for REMOTE
	Began  time.Duration // the cell, since the hello came
	About  evidence.About
	Trace  script.Trace
}

// Response is the answer to the request with its ID.
type Response struct {
	ID       uint64
	Err      *script.Error
	Facts    *script.Facts
	Outcomes []script.Outcome
	Errs     []*script.Error // of Rules, one per change
	Log      []script.Transcript

	Evidence *evidence.Record // of Look

	Checks []CheckItem
	Left   []*Left // of Tidy
	Lab    *bsd.Lab
	// Notice is something that a person may want to know now. It answers no
	// request: ID is 0.
	Notice string
	// Splats are reports in the log of REMOTE's kernel that something is wrong with it. They come
	// before the answer to a request that was under way, as an answer to none.
	Splats []string
}

// CheckItem is the result of one check of a host.
type CheckItem struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Warn: it is not known to be wrong, or only for some targets. OK is set as well.
	Warn bool `json:"warn,omitempty"`
	// Failed: it could not be asked. OK is not set.
	Failed bool   `json:"failed,omitempty"`
	Detail string `json:"detail,omitempty"` // what was found
	Cure   string `json:"cure,omitempty"`   // the command that fixes it
}

// check refuses a request that no orchestrator of this program sends.
func (r *Request) check() error {
	const maxSteps, maxChanges, maxPrefixes, maxLabels = 64, 4096, 64, 8
	n := 0
	for _, set := range []bool{r.Ping != nil, r.Setup != nil, r.Script != nil, r.Rules != nil, r.Log != nil,
		r.Look != nil, r.Check != nil, r.Cleanup != nil, r.Lab != nil, r.Bye != nil} {
		if set {
			n++
		}
	}
	switch {
	case n != 1:
		return fmt.Errorf("request %d asks for %d things, not one", r.ID, n)
	case r.Script != nil && len(r.Script.Steps) > maxSteps:
		return fmt.Errorf("script of %d steps is over the limit of %d", len(r.Script.Steps), maxSteps)
	case r.Rules != nil && len(r.Rules.Changes) > maxChanges:
		return fmt.Errorf("%d changes of rules are over the limit of %d", len(r.Rules.Changes), maxChanges)
	}
	if l := r.Look; l != nil {
		if len(l.Labels) > maxLabels {
			return fmt.Errorf("%d labels of one cell are over the limit of %d", len(l.Labels), maxLabels)
		}
		if err := l.About.Validate(); err != nil {
			return err
		}
	}
	for _, s := range []*script.Setup{r.Setup, r.Check} {
		if s == nil {
			continue
		}
		if n := len(s.Paths) + len(s.Beyond) + len(s.Gateways) + len(s.Fakes) + len(s.Capture); n > maxPrefixes {
			return fmt.Errorf("%d addresses are over the limit of %d", n, maxPrefixes)
		}
	}
	return nil
}
