package agent

import (
	"context"
	"errors"
	"runtime"
	"time"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/endpoint"
	"pfdivert/roles/lab/bsd"
)

// buildBSD builds a lab on this system. A test replaces it.
var buildBSD = func(ctx context.Context, c bsd.Config, journal pfconf.Journal) (*bsd.Lab, error) {
	return bsd.Build(ctx, runtime.GOOS, c, program.ExecBy(endpoint.Start), journal)
}

// buildLab builds a lab on this host, for two other agents. This one undoes it when it
// undoes all.
func (a *agent) buildLab(ctx context.Context, l *Lab) (*bsd.Lab, error) {
	a.setup.Lock()
	defer a.setup.Unlock()
	if a.hold != nil {
		return nil, errors.New("this agent holds the host already")
	}
	hold, err := Take(ctx, HoldOptions{
		Dir:      a.opt.StateDir,
		Lab:      true,
		By:       printable(l.By),
		Patience: time.Duration(l.WaitSeconds) * time.Second,
		Tell:     a.notice,
	})
	if err != nil {
		return nil, err
	}
	a.hold = hold
	a.lab, err = buildBSD(ctx, l.Config, hold.Journal)
	return a.lab, err
}
