package testbed

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/script"
	"pfdivert/roles/host"
	"pfdivert/roles/kernel"
	"pfdivert/roles/kernel/splat"
	"pfdivert/roles/lab"
	"pfdivert/roles/terminal"
)

// onlyKernel refuses what goes with other hosts.
func (o Options) onlyKernel() error {
	switch {
	case o.HostsFile != "":
		return terminal.WithHint(errors.New("-kernel and -hosts name two hosts"),
			"begin a line of the hosts file with kernel="+o.Kernel)
	case o.Getenv("REMOTE_SSH") != "":
		return terminal.WithHint(errors.New("-kernel and REMOTE_SSH name two hosts"),
			"unset REMOTE_SSH, or leave -kernel out")
	case o.Domain != 0:
		return terminal.WithHint(errors.New("-rdomain is OpenBSD's"), "leave it out with -kernel")
	}
	return nil
}

// guest returns the options for a host of a hosts file that is a kernel.
func (o Options) guest(h fileHost) Options {
	o.Kernel, o.Modules = h.kernel, h.set["modules"]
	for name, to := range map[string]*int{"memory": &o.Memory, "cpus": &o.CPUs} {
		if text, ok := h.set[name]; ok {
			*to, _ = strconv.Atoi(text) // 0 is refused
		}
	}
	return o
}

// reachKernel boots a kernel and reaches the agents in it.
func reachKernel(ctx context.Context, o Options) (*Pair, error) {
	o.doing("booting " + o.Kernel)
	guest, err := kernel.Boot(ctx, kernel.Options{
		Kernel: o.Kernel, Modules: o.Modules, Memory: o.Memory, CPUs: o.CPUs, Single: o.Single,
		Dist: host.DistFolders(o.Getenv),
	})
	if err != nil {
		return nil, err
	}
	p := &Pair{Local: guest.Local, Remote: guest.Remote, guest: guest, Trips: setupTrips}
	if err := p.dial(ctx, LabHeartbeat); err != nil {
		var lost *script.LostError
		if errors.As(err, &lost) && ctx.Err() == nil {
			err = guest.Failed(lost)
		}
		return nil, err // else the kernel is up, and lacks something
	}
	p.inLab(lab.Config{Single: o.Single})
	p.Options.Dangerous = true // the machine is there for the run alone
	return p, nil
}

// panicPatience is how long a machine whose agents are lost may take to say why.
const panicPatience = 10 * time.Second

// judgeKernel makes a FAIL of a target during which the tested kernel reported that something is
// wrong with itself, whatever the target's own verdict was. The kernel's log is read before each
// answer is sent; a panic ends the machine, and only its console has it.
func (p *Pair) judgeKernel(r matrix.Result) matrix.Result {
	if r.Reason == matrix.Interrupted || r.Verdict == matrix.Skip {
		return r
	}
	began := time.Now().Add(-time.Duration(r.Seconds * float64(time.Second)))
	var reports []string
	for _, s := range p.Hosts.Remote.Splats() {
		if !s.At.Before(began) {
			reports = append(reports, s.Text)
		}
	}
	if len(reports) == 0 && p.guest != nil && r.Verdict == matrix.Error && r.Reason == matrix.AgentLost {
		reports = p.guest.LastWords(panicPatience)
	}
	if len(reports) == 0 {
		return r
	}
	was := "PASS"
	if r.Reason != "" {
		was = fmt.Sprintf("%s (%s): %s", r.Verdict, r.Reason, r.Detail)
	}
	return r.Splat(splat.Title(reports[0]), strings.Join(reports, ""), was)
}
