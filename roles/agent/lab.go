package agent

import (
	"context"
	"errors"
	"runtime"
	"time"

	"pfdivert/pfconf/program"
	"pfdivert/roles/endpoint"
	"pfdivert/roles/lab/bsd"
)

// buildLab builds a lab on this host, for two other agents. This one undoes it when it
// undoes all.
func (a *agent) buildLab(ctx context.Context, l *Lab) (*bsd.Lab, error) {
	a.setup.Lock()
	defer a.setup.Unlock()
	if a.hold != nil {
		return nil, errors.New("this agent holds the host already")
	}
	var err error
	a.hold, err = Take(ctx, HoldOptions{
		Dir:      a.opt.StateDir,
		Lab:      true,
		By:       printable(l.By),
		Patience: time.Duration(l.WaitSeconds) * time.Second,
		Tell:     a.notice,
	})
	if err != nil {
		return nil, err
	}
	a.lab, err = bsd.Build(ctx, runtime.GOOS, l.Config, program.ExecBy(endpoint.Start), a.hold.Journal)
	return a.lab, err
}
