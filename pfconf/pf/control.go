package pf

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
	"pfdivert/pfconf/shared"
)

// Control asks a host's pf and changes its states. It needs no anchor; a host
// that takes no part in diverting but filters (LOCAL) has one to clear its own
// states. Its methods may be called at the same time.
type Control struct {
	run    Runner
	domain int
	// rdrRules: see Config.
	rdrRules bool
	list     *shared.Question[[]pfconf.State] // pfctl -ss
	listVV   *shared.Question[[]pfconf.State] // pfctl -ss -vv
}

// NewControl makes a Control. Run nil means program.Exec. The flows and labels that it
// is asked about are those of the routing domain, 0 where there are none.
func NewControl(run Runner, domain int) *Control {
	if run == nil {
		run = program.Exec
	}
	c := &Control{run: run, domain: domain}
	c.list = shared.New(func(ctx context.Context) ([]pfconf.State, error) { return c.states(ctx, false) })
	c.listVV = shared.New(func(ctx context.Context) ([]pfconf.State, error) { return c.states(ctx, true) })
	return c
}

// known reports whether a line on stderr is known to be harmless after a command.
type known func(line string) bool

func nothing(string) bool { return false }

// pfctl runs pfctl and returns what it printed. An exit status other than 0 is
// an error, and so is a line on stderr that is neither harmless nor the
// remark of FreeBSD's pfctl on a kernel without ALTQ.
func (c *Control) pfctl(ctx context.Context, stdin string, harmless known, args ...string) (Result, error) {
	argv := append([]string{"pfctl"}, args...)
	r, err := c.run(ctx, Command{Argv: argv, Stdin: stdin})
	if err != nil {
		return r, &Error{program.Failure{Argv: argv, Err: err}}
	}
	bad := r.Status != 0
	for _, l := range program.Lines(r.Stderr) {
		if !harmless(l) && l != "No ALTQ support in kernel" && l != "ALTQ related functions disabled" {
			bad = true
		}
	}
	if bad {
		return r, &Error{program.Failure{Argv: argv, Status: r.Status, Stderr: r.Stderr}}
	}
	return r, nil
}

var killedLine = regexp.MustCompile(`^killed ([0-9]+) states( from [0-9]+ sources and [0-9]+ destinations)?$`)

// kill runs a pfctl that kills states and returns how many it killed.
func (c *Control) kill(ctx context.Context, args ...string) (int, error) {
	r, err := c.pfctl(ctx, "", killedLine.MatchString, args...)
	if err != nil {
		return 0, err
	}
	for _, l := range program.Lines(r.Stderr) {
		if m := killedLine.FindStringSubmatch(l); m != nil {
			return strconv.Atoi(m[1])
		}
	}
	return 0, fmt.Errorf("pfctl %q did not say how many states it killed", args)
}
