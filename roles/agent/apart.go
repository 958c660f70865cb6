package agent

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"pfdivert/matrix/script"
	"pfdivert/roles/endpoint"
)

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
	if st.Process == script.UnprivilegedProcess {
		withoutPrivilege(cmd)
	}
	e := &traced{end: st.Socket, cmd: cmd}
	st.Process = ""
	out, err := e.start(ctx, st)
	if e.conn == nil {
		return nil, out, err
	}
	// A socket that it could not open is an answer; the process stays for what it logged.
	return e, out, err
}

// start starts the process and has it carry out the step. Without an error, or when it was
// the step that failed, conn is set. That the process could not be started is never told with a
// system's code: EPERM of a kernel that gives no user namespace would be taken for the
// refusal of the socket, which no one then asked for.
func (e *traced) start(ctx context.Context, st script.Open) (script.Outcome, error) {
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
	if err := endpoint.Start(e.cmd); err != nil {
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
