package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/nft"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/lab/bsd"
	"pfdivert/roles/lab/inject"
)

// CleanUp is the hint to what undoes the changes that are left. The hosts of a run may lack the
// program, so it is to be typed where the run was.
const CleanUp = "pfdivert cleanup, here, with the same REMOTE_SSH (if any), SUDO and SSH_OPTIONS"

// Head is the first line of a journal.
type Head struct {
	PID     int       `json:"pid"`
	Boot    string    `json:"boot"`          // see bootID
	Net     string    `json:"net,omitempty"` // see netID
	Started time.Time `json:"started"`
	By      string    `json:"by,omitempty"` // who runs the orchestrator, and where
}

// journal is the file in which an agent records how its changes of the host are
// undone: a line with the Head, then one with a pfconf.Undo for each change, all
// JSON. The agent holds a lock on it as long as it lives.
type journal struct {
	mu   sync.Mutex
	file *os.File
}

const (
	journalSuffix = ".journal"
	// maxJournal bounds what is read: an anchor's former rules are the longest entry.
	maxJournal = 16 << 20
)

// begin makes the journal of this process. The directory's turn must be held.
func (d stateDir) begin(by string) (*journal, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(string(d), "agent-*"+journalSuffix)
	if err != nil {
		return nil, err
	}
	j := &journal{file: f}
	err = relock(f, unix.LOCK_EX)
	if err == nil {
		err = j.write(Head{PID: os.Getpid(), Boot: boot, Net: netID(), Started: time.Now(), By: by})
	}
	if err == nil {
		err = syncDir(string(d))
	}
	if err != nil {
		return nil, errors.Join(err, j.end())
	}
	return j, nil
}

// record is a pfconf.Journal: when it returns, the entry is on disk.
func (j *journal) record(u pfconf.Undo) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return errors.New("the journal is closed")
	}
	return j.write(u)
}

func (j *journal) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(append(b, '\n')); err != nil {
		return err
	}
	return j.file.Sync()
}

// end removes the journal: all is undone. The directory's turn must be held.
func (j *journal) end() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := errors.Join(os.Remove(j.file.Name()), j.file.Close())
	j.file = nil
	return err
}

// leave lets go of the journal and keeps it for a later cleanup.
func (j *journal) leave() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.file.Close()
	j.file = nil
	return err
}

// syncDir makes the names in a directory durable.
func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Left is a journal that was found. Its agent may still be at work.
type Left struct {
	Head
	File  string        `json:"file"`
	Steps []pfconf.Undo `json:"steps"`
	// Alive: the agent is at work. Elsewhere: the journal is about another network
	// namespace. Rebooted: the host has been booted since, which undid all.
	Alive     bool `json:"alive,omitempty"`
	Elsewhere bool `json:"elsewhere,omitempty"`
	Rebooted  bool `json:"rebooted,omitempty"`
	// Undone says of each step that was undone what was done; Err is what went
	// wrong then. The journal is gone if nothing did.
	Undone []string `json:"undone,omitempty"`
	Err    string   `json:"err,omitempty"`
}

// Stale reports whether the journal should be undone here.
func (l *Left) Stale() bool { return !l.Alive && !l.Elsewhere }

func (l *Left) String() string {
	s := fmt.Sprintf("agent %d, started %s", l.PID, l.Started.Local().Format(time.DateTime))
	if by := printable(l.By); by != "" {
		s += " by " + by
	}
	return s
}

// journals reads the journals in the directory. Each comes with its file, locked,
// unless its agent is alive. The directory's turn must be held.
func (d stateDir) journals() (found []*Left, files []*os.File, err error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			closeAll(files)
			found, files = nil, nil
		}
	}()
	boot, err := bootID()
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), journalSuffix) {
			continue
		}
		f, err := os.OpenFile(d.file(e.Name()), os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err != nil {
			return found, files, err
		}
		files = append(files, f)
		l := &Left{File: f.Name()}
		found = append(found, l)
		switch err := relock(f, unix.LOCK_EX); {
		case errors.Is(err, errHeld):
			l.Alive = true
		case err != nil:
			return found, files, err
		}
		if l.Head, l.Steps, err = readJournal(f); err != nil {
			return found, files, hinted{fmt.Errorf("journal %s: %w", f.Name(), err),
				"look at it, and remove it: rm " + f.Name()}
		}
		l.Rebooted = !sameBoot(l.Boot, boot)
		l.Elsewhere = !l.Rebooted && l.Net != netID()
	}
	return found, files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// readJournal reads a journal. A last line without its end was being written when
// the agent ended: the change that it is about was not made.
func readJournal(r io.Reader) (head Head, steps []pfconf.Undo, err error) {
	b, err := io.ReadAll(io.LimitReader(r, maxJournal+1))
	if err != nil {
		return head, nil, err
	}
	if len(b) > maxJournal {
		return head, nil, fmt.Errorf("it is longer than %d bytes", maxJournal)
	}
	in := bufio.NewScanner(bytes.NewReader(b[:bytes.LastIndexByte(b, '\n')+1]))
	in.Buffer(nil, maxJournal)
	for n := 1; in.Scan(); n++ {
		if n == 1 {
			err = json.Unmarshal(in.Bytes(), &head)
		} else {
			var u pfconf.Undo
			err = json.Unmarshal(in.Bytes(), &u)
			steps = append(steps, u)
		}
		if err != nil {
			return head, nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return head, steps, in.Err()
}

// Cleanup undoes the changes of killed agents, as the journals in the directory dir record them, or
// with look changes nothing. It returns all journals. The error says that they could not be read;
// the error of a single journal is in its Err.
func Cleanup(ctx context.Context, dir string, look bool) (found []*Left, err error) {
	d := stateDir(dir)
	switch _, err := os.Lstat(dir); {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case os.Geteuid() != 0:
		return nil, hinted{fmt.Errorf("user %d can't read the journals in %s", os.Geteuid(), dir),
			"it takes root: set SUDO to sudo or doas"}
	}
	err = d.locked(ctx, func() error {
		var files []*os.File
		var err error
		if found, files, err = d.journals(); err != nil {
			return err
		}
		defer closeAll(files)
		for _, l := range found {
			if l.Stale() && !look {
				d.restore(ctx, l)
			}
		}
		return nil
	})
	return found, err
}

// restore undoes a stale journal, last step first, and removes it. What can't be undone
// does not keep the rest from it; then the journal stays.
func (d stateDir) restore(ctx context.Context, l *Left) {
	var errs []error
	if !l.Rebooted {
		for i := len(l.Steps) - 1; i >= 0; i-- {
			what, err := d.undoStep(ctx, l.Steps[i])
			if err != nil {
				errs = append(errs, err)
			} else {
				l.Undone = append(l.Undone, what)
			}
		}
	}
	if len(errs) == 0 {
		errs = append(errs, os.Remove(l.File))
	}
	if err := errors.Join(errs...); err != nil {
		l.Err = err.Error()
	}
}

// printable makes what another host or a file says fit for a terminal.
func printable(s string) string {
	const most = 400
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > most {
		s = string(r[:most])
	}
	return s
}

// hinted is an error with what can be done about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string  { return h.hint }
func (h hinted) Unwrap() error { return h.error }

// undoStep does one step of a journal and says what it did. The directory's turn
// must be held.
func (d stateDir) undoStep(ctx context.Context, u pfconf.Undo) (string, error) {
	var err error
	switch owner, _, _ := strings.Cut(u.Do, "/"); owner {
	case "nft":
		err = nft.Undo(ctx, u)
	case "ipfw":
		err = ipfw.Restore(ctx, nil, u)
	case "pf":
		err = pf.Restore(ctx, nil, u)
	case "lab":
		err = bsd.Undo(ctx, program.Exec, u)
	case "spoil":
		err = inject.Undo(ctx, program.Exec, u)
	case "route":
		return d.undoRoute(ctx, u)
	case "trace":
		err = undoTraces(u)
	default:
		err = fmt.Errorf("undo %q %q: not a step of this program", u.Do, u.Args)
	}
	return Describe(u), err
}

// Describe returns what a step of a journal undoes.
func Describe(u pfconf.Undo) string {
	arg := func(i int) string {
		if i < len(u.Args) {
			return printable(u.Args[i])
		}
		return "?"
	}
	switch u.Do {
	case "nft/table":
		return "delete table inet " + nft.TableName
	case "nft/states":
		return "delete the diverted flows' conntrack entries"
	case "nft/ip-rule":
		return fmt.Sprintf("delete the %s policy rule to table %d", arg(0), nft.Table)
	case "nft/local-route":
		return fmt.Sprintf("delete the local route to %s in table %d", arg(0), nft.Table)
	case "nft/lookup-route":
		return fmt.Sprintf("delete the local route to %s", arg(0))
	case "nft/xt":
		return fmt.Sprintf("delete the chains %s-* of the %s table %s of iptables-nft", nft.TableName, arg(0), arg(1))
	case "nft/xt-legacy":
		return fmt.Sprintf("delete the chains %s-* of the %s table %s of iptables-legacy", nft.TableName, arg(0), arg(1))
	case "nft/bpf":
		return fmt.Sprintf("detach the programs of BPF from %s", arg(0))
	case "nft/early-demux":
		return "set net.ipv4.ip_early_demux to " + arg(0)
	case "nft/route-localnet":
		return fmt.Sprintf("set net.ipv4.conf.%s.route_localnet to %s", arg(0), arg(1))
	case ipfw.UndoSets:
		return fmt.Sprintf("delete ipfw's sets %s and %s", arg(0), arg(1))
	case ipfw.UndoPipe:
		return "remove dummynet's pipe " + arg(0)
	case ipfw.UndoExthdrs:
		return "have ipfw deny unknown IPv6 protocols"
	case pf.UndoAnchor:
		return fmt.Sprintf("put the rules of anchor %q back", arg(0))
	case pf.UndoLabels:
		return "remove the states of the run's labels"
	case undoTraceFolder:
		return "remove the traces in " + arg(0)
	case inject.UndoSetting:
		return fmt.Sprintf("set %s to %s", arg(0), arg(1))
	case inject.UndoSkip:
		return fmt.Sprintf("have pf see %s again", arg(0))
	case undoAddedRoute:
		return fmt.Sprintf("delete the route to %s via %s", arg(0), arg(1))
	}
	if s := bsd.Describe(u); s != "" {
		return printable(s)
	}
	return fmt.Sprintf("%q %q", u.Do, u.Args)
}
