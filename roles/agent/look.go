package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"pfdivert/matrix/evidence"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/gather"
	"pfdivert/roles/socket"
)

// observed says which host it is that is going to be looked at.
func (a *agent) observed(s *script.Setup) gather.Options {
	o := gather.Options{Interface: a.opt.Interface, Remote: s.Remote, Ephemeral: a.opt.Ephemeral,
		Run: program.ExecBy(socket.Start)}
	if len(s.Capture) > 0 {
		o.Capture = &gather.Filter{Cells: s.Capture}
		for _, p := range s.Paths {
			o.Capture.Pairs = append(o.Capture.Pairs, [2]netip.Addr{p.Here, p.There})
		}
	}
	if o.Interface == "" && len(s.Paths) > 0 {
		o.Interface, _ = interfaceOf(s.Paths[0].Here) // else it is not known, which the answers show
	}
	if s.Remote {
		routing(&o, s.Filter)
	}
	return o
}

// lookTime bounds what a host is asked for, below the orchestrator's own bound: what was not
// answered by then is missing, and the rest is not lost with it. Other cells may wait for this one
// meanwhile, and their states do not live for ever.
const lookTime = 10 * time.Second

// looked does what a Look asks for.
func (a *agent) looked(ctx context.Context, l *EvidenceRequest) *evidence.Record {
	if l.Trace == script.NoTrace {
		return a.look(ctx, l)
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var c evidence.Record
	var err error
	switch {
	case !a.opt.Ephemeral:
		err = errors.New("packets are traced in a lab only")
	case l.Trace == script.BeginTrace:
		err = a.watched.begin(l)
	case l.Trace == script.EndTrace:
		c.Trace, err = a.watched.end(ctx, l)
	default:
		err = errors.New("there is no such step")
	}
	if err != nil {
		c.Missing = []string{"trace: " + err.Error()}
	}
	c.Bound()
	return &c
}

// look gathers what this host shows of a cell. What can't be found out is named
// in the evidence and fails nothing.
func (a *agent) look(ctx context.Context, l *EvidenceRequest) *evidence.Record {
	a.setup.Lock()
	seen, fw := a.seen, a.fw
	a.setup.Unlock()
	var c evidence.Record
	if seen == nil {
		c.Missing = []string{"this host is not set up"}
		return &c
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	ended := a.standing(l.Cell)
	l.About.Ports = ended.ports
	var states []pfconf.State
	var rules []evidence.FilterRule
	var noStates, noRules error
	var wg sync.WaitGroup
	wg.Go(func() {
		table, err := a.states()
		if err == nil {
			var found [][]pfconf.State
			found, err = table.Lookup(ctx, l.About.Flows)
			states = slices.Concat(found...)
		}
		noStates = err
	})
	if fw != nil && len(l.Labels) > 0 {
		wg.Go(func() { rules, noRules = rulesOf(ctx, fw, l.Labels) })
	}
	c = seen.Look(ctx, l.About, a.when(l.Began))
	wg.Wait()
	c.Rules, c.States, c.Errors = rules, states, ended.errors
	c.Sockets = append(c.Sockets, ended.closed...)
	for _, m := range []struct {
		what string
		err  error
	}{{"rules", noRules}, {"states", noStates}} {
		if m.err != nil {
			c.Missing = slices.Insert(c.Missing, 0, m.what+": "+m.err.Error())
		}
	}
	c.Cut = c.Cut || ctx.Err() != nil
	c.Bound()
	return &c
}

// when returns the own host's time of what began so long after the hello had come to the
// orchestrator. It is never late, however long a request was on its way or waited: the hello left
// after a.began.
func (a *agent) when(began time.Duration) time.Time {
	return time.Now().Add(began - time.Since(a.began))
}

// standing returns what a cell's sockets have heard of ICMP errors, and which are closed, and
// the ports of those that are open.
func (a *agent) standing(cell string) ended {
	a.mu.Lock()
	s, e := a.sessions[cell], a.done[cell]
	a.mu.Unlock()
	if s == nil {
		return e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var ports []uint16
	for _, end := range s.ends {
		if end.ep != nil {
			s.heard(end, strings.Join(end.ep.Errors(), "; "))
		}
		if p := end.local.Port(); p != 0 {
			ports = append(ports, p)
		}
	}
	e = s.ended
	e.ports = ports
	e.errors, e.closed = slices.Clone(e.errors), slices.Clone(e.closed)
	return e
}

// rulesOf returns the rules of a cell with what they have counted.
func rulesOf(ctx context.Context, fw pfconf.Firewall, labels []string) ([]evidence.FilterRule, error) {
	var texts map[string]string
	var noTexts error
	var wg sync.WaitGroup
	if s, ok := fw.(pfconf.Shower); ok {
		wg.Go(func() { texts, noTexts = s.Show(ctx, labels) })
	}
	counters, err := fw.Counters(ctx, labels)
	wg.Wait()
	if err != nil {
		return nil, err
	}
	var all []evidence.FilterRule
	for _, label := range labels {
		after := counters[label]
		all = append(all, evidence.FilterRule{Label: label, Text: texts[label], After: &after})
	}
	return all, noTexts
}
