package matrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"pfdivert/matrix/injection"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// Hosts are the two hosts of a run.
type Hosts struct {
	Local, Remote script.Host
}

// Options say how a run is done.
type Options struct {
	// Families has the addresses of the families that both hosts have. NoFamily
	// says of the others how it is known that one lacks it.
	Families map[pfconf.Family]Addresses
	NoFamily map[pfconf.Family]string
	// Filter is how a Linux REMOTE's kernel is given the rules, "" for pfconf.NFT.
	Filter pfconf.Engine
	// Parallel is how many targets are run at the same time at most, 0 for all that the hosts keep
	// up with.
	Parallel int
	// Transcripts are wanted of passed cells too.
	Transcripts bool
	// Evidence is wanted of passed cells too, where targets are run only once.
	Evidence bool
	// NoEvidence is gathered of any cell, and nothing explained: for hosts that are slow to show it
	// and have many that fail.
	NoEvidence bool
	// Untraced: cells that fail in a lab are not run once more under the kernel's trace.
	Untraced bool
	// Capture: the hosts keep the newest packets of their test interfaces, for evidence.
	Capture bool
	// Trace is the command to run endpoints under, empty for none.
	Trace string
	// Rounds is how many echoes make a fence (see script.Fence).
	Rounds int
	// By is who runs this, and where; Patience how long to wait for another run that
	// is using REMOTE.
	By       string
	Patience time.Duration
	// Second are the hosts beyond REMOTE, by family. Targets that need one that there is not are
	// skipped.
	Second map[pfconf.Family]Network
	// Dangerous: targets that may crash the kernel are run.
	Dangerous bool
	// Part and Parts: runs at the same time that may have the same LOCAL each use their
	// part of the ports, 0 to Parts-1. Parts is 0 for a run that is alone.
	Part, Parts int
	// Omit leaves pieces out on purpose, BreakLocal and BreakRemote break a lab's hosts,
	// to see what this program says of that.
	Omit                    []string
	BreakLocal, BreakRemote []injection.Action
}

// Network is what REMOTE has an interface to besides the one towards LOCAL.
type Network struct {
	// Gateway is an address of LOCAL's in a second network of REMOTE's, none where there is none.
	Gateway netip.Addr
	// Mirror is a third host behind REMOTE, none where there is none: it sends what comes to it of
	// TCP from LOCAL back to LOCAL, to the same port, from itself and the client's port, and what
	// answers that to the client.
	Mirror netip.Addr
	// Domain, if not 0, is the third host's routing domain, which LOCAL's sockets can be in: it has
	// nothing sent back (OpenBSD's lab).
	Domain int
}

// runner is a run under way.
type runner struct {
	ctx    context.Context
	hosts  Hosts
	opt    Options
	facts  script.Facts
	kernel Kernel
	// localFacts are LOCAL's.
	localFacts script.Facts
	processors int // of the host that has fewer
	omit       map[string]bool
	addresses  *AddressPlan
	batches    *ruleBatches
	locks      keyedLock
	budget     evidenceBudget
	divert     chan uint16 // free divert ports
}

// Run prepares the hosts, runs the targets and calls done for each as it
// ends, from several goroutines at once. When ctx ends, targets that are being
// played get the reason Interrupted. An error means that the run could not begin.
func Run(ctx context.Context, hosts Hosts, plan Plan, opt Options, done func(Result)) error {
	r := &runner{ctx: ctx, hosts: hosts, opt: opt, omit: map[string]bool{}, addresses: NewAddressPlan(opt.Families),
		divert: newDivertPorts()}
	for _, p := range opt.Omit {
		r.omit[p] = true
	}
	r.budget.all, r.budget.none = opt.Evidence && !plan.Repeats(), opt.NoEvidence
	r.addresses.take(opt.Part, opt.Parts)
	if err := r.prepare(); err != nil {
		return err
	}
	parallel := opt.Parallel
	most := len(plan.Targets)
	if plan.Repeats() {
		most *= 2 // while some wait for their rules, others use the processors
	}
	if parallel <= 0 || parallel > most {
		parallel = most
	}
	pace := newPace(r.processors, parallel, r.kernel)
	r.hosts.Local, r.hosts.Remote = pacedHost{hosts.Local, pace}, pacedHost{hosts.Remote, pace}
	next := make(chan Target)
	var players sync.WaitGroup
	var mu sync.Mutex
	var late []untold // their results are done when they were traced
	for range parallel {
		players.Go(func() {
			for t := range next {
				res, p := r.runTarget(ctx, t)
				pace.leave()
				if !plan.Repeats() && !r.opt.Untraced && r.traceable(res) {
					mu.Lock()
					late = append(late, untold{t, res, p})
					mu.Unlock()
					continue
				}
				done(r.explained(t, res, p))
			}
		})
	}
	n := 0
	for t := range plan.order(ctx) {
		// Without its agents a run can only go on failing.
		if n++; n > len(plan.Targets) && (hosts.Local.Lost() || hosts.Remote.Lost()) {
			break
		}
		pace.enter()
		next <- t
	}
	close(next)
	players.Wait()
	order := map[string]int{}
	for i, t := range plan.Targets {
		order[t.Name] = i
	}
	slices.SortFunc(late, func(a, b untold) int { return order[a.target.Name] - order[b.target.Name] })
	r.traceAll(ctx, late)
	for _, u := range late {
		u.result.Trace = u.cell.evidence.Remote.Trace
		done(r.explained(u.target, u.result, u.cell))
	}
	return nil
}

// Setups says what a run of the targets makes of the hosts.
func Setups(opt Options) (local, remote script.Setup, err error) {
	var here, there []script.Path
	setup := script.Setup{
		Rounds: opt.Rounds, Trace: opt.Trace, Omit: agentPieces(opt.Omit),
		By: opt.By, WaitSeconds: int(opt.Patience.Seconds()),
	}
	for _, f := range pfconf.Families {
		a, ok := opt.Families[f]
		if !ok {
			continue
		}
		if err := a.Validate(); err != nil {
			return local, remote, err
		}
		here = append(here, script.Path{Here: a.Local, There: a.Remote})
		there = append(there, script.Path{Here: a.Remote, There: a.Local})
		if mirror := opt.Second[f].Mirror; mirror.IsValid() {
			setup.Beyond = append(setup.Beyond, mirror)
		}
		if gateway := opt.Second[f].Gateway; gateway.IsValid() {
			setup.Gateways = append(setup.Gateways, gateway)
		}
		setup.Fakes = append(setup.Fakes, a.Fakes.Masked())
		if opt.Capture {
			if mirror := opt.Second[f].Mirror; mirror.IsValid() {
				setup.Capture = append(setup.Capture, netip.PrefixFrom(mirror, mirror.BitLen()))
			}
			setup.Capture = append(setup.Capture, a.Fakes.Masked())
			if !a.Locals.IsSingleIP() {
				setup.Capture = append(setup.Capture, a.Locals.Masked())
			}
		}
	}
	local, remote = setup, setup
	local.Paths, remote.Paths = here, there
	remote.Remote, remote.Filter = true, opt.Filter
	local.Break, remote.Break = opt.BreakLocal, opt.BreakRemote
	return local, remote, nil
}

// prepare makes the hosts LOCAL and REMOTE.
func (r *runner) prepare() error {
	local, remote, err := Setups(r.opt)
	if err != nil {
		return err
	}
	var errLocal, errRemote error
	_ = both(r.ctx,
		func(ctx context.Context) error {
			r.localFacts, errLocal = r.hosts.Local.Setup(ctx, local)
			return nil
		},
		func(ctx context.Context) error {
			r.facts, errRemote = r.hosts.Remote.Setup(ctx, remote)
			return nil
		})
	// REMOTE's comes first: that it lacks an address explains why it does not answer LOCAL.
	if err := errors.Join(wrap("remote", errRemote), wrap("local", errLocal)); err != nil {
		return err
	}
	r.processors = min(r.localFacts.Processors, r.facts.Processors)
	var ok bool
	if r.kernel, ok = KernelOf(r.facts.Firewall); !ok {
		return fmt.Errorf("remote: what to expect of a kernel with %q is not known", r.facts.Firewall)
	}
	r.kernel.Engine, r.kernel.FirstOnly = r.opt.Filter, r.opt.Filter == pfconf.BPFLookup
	r.kernel.OtherDomain = r.facts.Domain != 0
	r.kernel.Release, r.kernel.Minor = releaseOf(r.facts.Kernel)
	r.kernel.PFOn = r.facts.PFOn
	r.batches = &ruleBatches{change: r.hosts.Remote.Change, together: !r.facts.KeepsCounters}
	return nil
}

func wrap(host string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", host, err)
	}
	return nil
}

// skip reports whether the target can't be run, and why.
func (r *runner) skip(t Target) *finding {
	if why, missing := r.opt.NoFamily[t.Family]; missing {
		return &finding{Skip, NoFamily, why}
	}
	if t.Claim != nil {
		if f := t.Claim.skip(r.kernel); f != nil {
			return f
		}
		if t.Claim.mayCrash(r.kernel) && !r.opt.Dangerous {
			return &finding{Skip, Dangerous,
				"it may crash REMOTE's kernel: -dangerous runs it, on a machine that may be lost"}
		}
		if f := r.lacksBeyond(t); f != nil {
			return f
		}
		if t.Claim.NFT && r.opt.Filter != "" && r.opt.Filter != pfconf.NFT {
			return &finding{Skip, NotClaimed,
				fmt.Sprintf("its rule is made of nftables' statements, not of those of %s", r.opt.Filter)}
		}
		if why := t.Claim.Lacking[r.opt.Filter]; why != "" {
			return &finding{Skip, NotClaimed, why}
		}
		if from := t.Claim.BPFFrom; r.opt.Filter == pfconf.BPF && r.kernel.release().before(from) {
			return &finding{Skip, NotClaimed,
				fmt.Sprintf("programs of BPF do not do it before Linux %d.%d", from[0], from[1])}
		}
		lacks := func(what, why string) *finding {
			if r.facts.PFUnknown { // a question that failed proves no lack
				return &finding{Error, QuestionFailed, "REMOTE: whether " + what + ": " + why}
			}
			return &finding{Skip, NoFeature, "REMOTE: it can't be that " + what + ": " + why}
		}
		switch besides := r.kernel.besides(t); {
		case besides && r.facts.NoPF != "":
			return lacks("pf can be used beside ipfw", r.facts.NoPF)
		case t.Claim.BesidePF && !r.facts.PFOn:
			return &finding{Skip, NoFeature, "REMOTE: no pf is switched on beside ipfw"}
		case besides && t.First.translates() && r.facts.NoRdr != "":
			return lacks("pf beside ipfw can redirect", r.facts.NoRdr)
		}
	}
	if len(r.facts.Owned) > 0 {
		return &finding{Error, FakeOwned,
			fmt.Sprintf("REMOTE has FAKE configured (%v): cells would pass without being diverted", r.facts.Owned)}
	}
	return nil
}

// lacksBeyond says what a target lacks of networks beyond REMOTE, and what a person can do: nil
// when it needs none, or has all that it needs.
func (r *runner) lacksBeyond(t Target) *finding {
	second, there := r.opt.Second[t.Family], r.facts.Beyond[t.Family]
	var lacks []script.Lack
	if t.NeedsGateway() {
		if !second.Gateway.IsValid() {
			return &finding{Skip, NoFeature, fmt.Sprintf("REMOTE: no second network with LOCAL is named (%s, or run it in a lab "+
				"of FreeBSD or OpenBSD)", script.GatewayHint(t.Family))}
		}
		lacks = append(lacks, there.NoGateway)
	}
	if t.NeedsMirror() {
		if !second.Mirror.IsValid() {
			return &finding{Skip, NoFeature, fmt.Sprintf("REMOTE: no third host is named to forward to (%s, or run it in a lab "+
				"of FreeBSD whose kernel has pf, or of OpenBSD)", script.MirrorHint(t.Family))}
		}
		lacks = append(lacks, there.NoForwarding, there.NoMirror)
	}
	if t.Forwards() && (r.kernel.besides(t) || r.kernel.Firewall == "pf") {
		lacks = append(lacks, there.NoPF)
	}
	for _, l := range lacks {
		switch {
		case l.Failed: // a question that failed proves no lack
			return &finding{Error, QuestionFailed, "REMOTE: " + l.Why}
		case l.Why != "":
			return &finding{Skip, NoFeature, fmt.Sprintf("REMOTE: %s (%s)", l.Why, l.Hint)}
		}
	}
	if why := r.localFacts.Unheard[t.Family]; t.NeedsMirror() && why != "" {
		return &finding{Error, SetupFailed, fmt.Sprintf("LOCAL: the third host %v does not answer an echo request: %s",
			second.Mirror, why)}
	}
	return nil
}
