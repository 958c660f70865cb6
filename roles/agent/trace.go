package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/roles/socket"
)

// A tracer runs endpoints under $KTRACE: each in a process of its own, which is
// an agent too and is driven over the same kind of connection.
type tracer struct {
	command []string
	dir     string

	mu sync.Mutex
	n  int
}

// traceHeartbeat is that of the connections to traced endpoints. Their agents
// end with this one, whose end closes their input.
const traceHeartbeat = 5 * time.Second

// undoTraceFolder is the step that removes a folder of traces, which is its argument.
const (
	undoTraceFolder = "trace/folder"
	tracePrefix     = "pfdivert-trace-"
)

// undoTraces removes the folder of traces that a killed agent left. It is one that newTracer made.
func undoTraces(u pfconf.Undo) error {
	if u.Do != undoTraceFolder || len(u.Args) != 1 || !filepath.IsAbs(u.Args[0]) ||
		filepath.Clean(u.Args[0]) != u.Args[0] || !strings.HasPrefix(filepath.Base(u.Args[0]), tracePrefix) {
		return fmt.Errorf("undo %q %q: not a folder of traces", u.Do, u.Args)
	}
	return os.RemoveAll(u.Args[0])
}

// newTracer makes a directory for the traces. journal, which may be nil, records how it is removed.
// tell is told when another tracer than the command's is used.
func newTracer(command string, journal pfconf.Journal, tell func(string)) (*tracer, error) {
	t := &tracer{command: strings.Fields(command)}
	if len(t.command) == 0 {
		return nil, fmt.Errorf("%q is no command to trace with", command)
	}
	_, err := exec.LookPath(t.command[0])
	if err != nil {
		// One KTRACE is for both hosts, which may be of two systems.
		if twin := twins[t.command[0]]; twin != "" {
			if _, errTwin := exec.LookPath(twin); errTwin == nil {
				tell(fmt.Sprintf("KTRACE=%s: there is no %s here; %s traces in its place, without options", command,
					t.command[0], twin))
				t.command, err = []string{twin}, nil
			}
		}
	}
	if err != nil {
		return nil, hinted{fmt.Errorf("KTRACE: %w", err), "install it on this host, or leave KTRACE out"}
	}
	t.dir = filepath.Join(os.TempDir(), fmt.Sprintf("%s%016x", tracePrefix, rand.Uint64()))
	if journal != nil {
		if err := journal(pfconf.Undo{Do: undoTraceFolder, Args: []string{t.dir}}); err != nil {
			return nil, fmt.Errorf("recording the folder of the traces: %w", err)
		}
	}
	return t, os.Mkdir(t.dir, 0o700)
}

// twins are the tracers of the BSDs and of Linux.
var twins = map[string]string{"ktrace": "strace", "strace": "ktrace"}

// argv is the command line that traces the agent in exe into file. Options
// that the user gave with the command are kept; what every tracer needs
// to follow a Go program's threads and to write to a file is added.
func (t *tracer) argv(exe, file string) []string {
	argv := append([]string{}, t.command...)
	if filepath.Base(t.command[0]) == "strace" {
		argv = append(argv, "-f", "-o", file)
	} else { // ktrace(1): threads are the process's, -i is for its children
		argv = append(argv, "-f", file)
	}
	return append(argv, exe, "agent", "-traced")
}

// traced is an endpoint in a process of its own, under the tracer or without one.
type traced struct {
	end  string
	file string // of the trace, empty without one
	cmd  *exec.Cmd
	conn *Conn
}

// open starts a traced process and opens the step's endpoint in it.
func (t *tracer) open(ctx context.Context, st script.Open) (*traced, script.Outcome, error) {
	t.mu.Lock()
	t.n++
	file := filepath.Join(t.dir, fmt.Sprintf("%d.trace", t.n))
	t.mu.Unlock()
	exe, err := os.Executable()
	if err != nil {
		return nil, script.Outcome{}, err
	}
	argv := t.argv(exe, file)
	e := &traced{end: st.Socket, file: file, cmd: exec.Command(argv[0], argv[1:]...)}
	o, err := e.start(ctx, socket.Start, st)
	if err != nil && e.conn != nil {
		e.close()
	}
	if err != nil {
		return nil, o, fmt.Errorf("trace: %w", err)
	}
	return e, o, nil
}

// step has the traced process carry out a step.
func (e *traced) step(ctx context.Context, st script.Step) (script.Outcome, error) {
	outcomes, err := e.conn.Script(ctx, script.Script{Cell: "traced", Steps: []script.Step{st}})
	if err != nil {
		return script.Outcome{}, err
	}
	if f := outcomes[0].Err; f != nil {
		return outcomes[0], f
	}
	return outcomes[0], nil
}

// close ends the process and gives its log and its trace.
func (e *traced) close() []script.Transcript {
	ctx, cancel := context.WithTimeout(context.Background(), traceHeartbeat)
	defer cancel()
	log, err := e.conn.Log(ctx, "traced")
	if err != nil {
		log = []script.Transcript{{End: e.end, Text: "no log: " + err.Error() + "\n"}}
	}
	err = errors.Join(e.conn.Close(), e.cmd.Wait())
	if e.file == "" {
		return log
	}
	tool := filepath.Base(e.cmd.Args[0])
	trace, errRead := readTrace(ctx, tool, e.file)
	if errRead != nil {
		trace = fmt.Sprintf("no trace: %v\n", errors.Join(errRead, err))
	}
	return append(log, script.Transcript{End: e.end + "." + tool, Text: trace})
}

// maxTrace bounds what is kept of one trace, in bytes.
const maxTrace = 512 << 10

// readTrace returns the trace as text: ktrace(1) writes for kdump(1), others for
// people.
func readTrace(ctx context.Context, tool, file string) (string, error) {
	var text []byte
	var err error
	if tool == "ktrace" {
		text, err = exec.CommandContext(ctx, "kdump", "-f", file).Output()
	} else {
		text, err = os.ReadFile(file)
	}
	if len(text) > maxTrace {
		text = append(text[:maxTrace], "\n[the rest of the trace is not kept]\n"...)
	}
	return string(text), err
}

// remove removes the directory of the traces.
func (t *tracer) remove() error { return os.RemoveAll(t.dir) }

// openApart starts a process for an endpoint and opens it there.
func openApart(ctx context.Context, st script.Open) (*traced, script.Outcome, error) {
	if st.Process != script.OtherProcess && st.Process != script.UnprivilegedProcess {
		return nil, script.Outcome{}, fmt.Errorf("there is no process %q", st.Process)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, script.Outcome{}, err
	}
	cmd := exec.Command(exe, "agent", "-traced")
	begin := socket.Start
	if st.Process == script.UnprivilegedProcess {
		begin = startUnprivileged
	}
	e := &traced{end: st.Socket, cmd: cmd}
	st.Process = ""
	out, err := e.start(ctx, begin, st)
	if e.conn == nil {
		return nil, out, err
	}
	// A socket that it could not open is an answer; the process stays for what it logged.
	return e, out, err
}

// start starts the process by begin and has it carry out the step. Without an error, or when it
// was the step that failed, conn is set. That the process could not be started is never told with
// a system's code: its EPERM would be taken for the refusal of the socket, which no one then
// asked for.
func (e *traced) start(ctx context.Context, begin func(*exec.Cmd) error, st script.Open) (script.Outcome, error) {
	in, err := e.cmd.StdinPipe()
	if err != nil {
		return script.Outcome{}, err
	}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return script.Outcome{}, err
	}
	var stderr bounded
	e.cmd.Stderr = &stderr
	if err := begin(e.cmd); err != nil {
		return script.Outcome{}, e.unstarted(err.Error())
	}
	if e.conn, err = Dial(ctx, out, in, traceHeartbeat); err != nil {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait()
		return script.Outcome{}, e.unstarted(err.Error() + " " + strings.TrimSpace(stderr.String()))
	}
	return e.step(ctx, st)
}

func (e *traced) unstarted(why string) error {
	return fmt.Errorf("start %s: %s", e.cmd.Args[0], why)
}
