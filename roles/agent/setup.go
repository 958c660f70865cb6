package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/gather"
	"pfdivert/roles/kernel/splat"
	"pfdivert/roles/lab/bsd"
	"pfdivert/roles/lab/inject"
	"pfdivert/roles/socket"
)

// UndoTimeout bounds putting the host back: the agent must end even when a command
// of the system hangs.
const UndoTimeout = 20 * time.Second

// realFence is how long a fence between hosts that are no lab of namespaces may take: an
// emulated machine that is both hosts, with all programs that a run starts on one
// processor, has taken more than two seconds.
const realFence = 10 * time.Second

// setUp makes this host LOCAL or REMOTE.
func (a *agent) setUp(ctx context.Context, s *script.Setup) (*script.Facts, error) {
	a.setup.Lock()
	defer a.setup.Unlock()
	if a.fences != nil {
		return nil, errors.New("this host was set up before")
	}
	if s.Filter != "" && runtime.GOOS != "linux" {
		return nil, hinted{fmt.Errorf("filter %s: %s has a packet filter of its own", s.Filter, runtime.GOOS),
			"leave out -filter, or filter= in the hosts file"}
	}
	if len(s.Break) > 0 && !a.opt.Ephemeral && !a.opt.Lab {
		return nil, errors.New("a host is broken on purpose in a lab only")
	}
	if slices.Contains(s.Omit, script.Timestamps) {
		if err := a.withoutTimestamps(); err != nil {
			return nil, err
		}
	}
	facts := &script.Facts{Domain: a.opt.Domain, Processors: runtime.NumCPU()}
	a.fences = map[fenceTo]*socket.Fencer{}
	opt := a.opt
	var err error
	if !a.opt.Ephemeral {
		if err := a.takeHost(ctx, s); err != nil {
			return nil, err
		}
		opt.Journal = a.hold.Journal
	}
	a.seen = gather.Open(a.observed(s))
	for _, p := range s.Paths {
		family := pfconf.FamilyOf(p.Here)
		f, err := a.openFence(s, p.Here, p.There)
		if err != nil {
			return nil, err
		}
		a.fences[fenceTo{family, false}] = f
		beyond := ofFamily(s.Beyond, family)
		if s.Remote || !beyond.IsValid() {
			continue
		}
		if f, err = a.openFence(s, p.Here, beyond); err != nil {
			return nil, err
		}
		if _, err := f.Pass(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, errors.Join(context.Cause(ctx), f.Close())
			}
			if facts.Unheard == nil {
				facts.Unheard = map[pfconf.Family]string{}
			}
			facts.Unheard[family] = err.Error()
			if err := f.Close(); err != nil {
				return nil, err
			}
			continue
		}
		a.fences[fenceTo{family, true}] = f
	}
	if runtime.GOOS != "linux" {
		a.greet(ctx)
	}
	if s.Trace != "" {
		if a.trace, err = newTracer(s.Trace, opt.Journal, a.notice); err != nil {
			return nil, err
		}
	}
	if !s.Remote {
		a.fakes = s.Fakes
		if facts.Arrivals, err = arrivals(s); err != nil {
			return nil, err
		}
		if a.table, err = ownStates(ctx, a.opt); err != nil {
			return nil, err
		}
		return facts, a.breakHost(ctx, s)
	}
	if log, err := splat.Open(); err == nil { // else a kernel's reports on itself are not seen
		a.log.Store(log)
	}
	a.filters = *s
	if a.fw, err = OpenFilter(ctx, s, opt); err != nil {
		return nil, err
	}
	if err := a.breakHost(ctx, s); err != nil {
		return nil, err
	}
	if facts.Owned, err = owned(s.Fakes); err != nil {
		return nil, fmt.Errorf("is FAKE configured here: %w", err)
	}
	facts.Traces = tracesPackets && a.opt.Ephemeral // its table goes with the lab
	facts.Firewall, facts.KeepsCounters = a.fw.Name(), a.fw.KeepsCounters()
	if hasBeyond(s) && runtime.GOOS != "linux" {
		facts.Beyond = findBeyond(ctx, program.ExecBy(socket.Start), s, nicsOf(s))
	}
	if runtime.GOOS == "openbsd" {
		facts.Interfaces = nicsOf(s)
	}
	if b, ok := a.fw.(*filterPair); ok {
		facts.NoPF, facts.NoRdr, facts.PFUnknown = b.noPF, b.noRdr, b.unknown
		facts.PFOn, facts.Interfaces = b.on, b.nics
	}
	return facts, nil
}

// greeting is how long a host may take to answer the first packet.
const greeting = time.Second

// greet sends the other host a packet, and waits for the answer. While a BSD asks for a neighbour's
// address it keeps the first packets to it, FreeBSD 16 (net.link.ether.inet.maxhold,
// net.inet6.icmp6.nd6_maxqueuelen) and OpenBSD 10 (LA_HOLD_QUEUE, netinet/if_ether.c), and loses
// others: of many cells that send at once, or of the pieces of one long datagram. Linux keeps as
// much as a socket may send (unres_qlen_bytes, ip-sysctl.rst). A host that does not answer is left
// to the cells to tell of.
func (a *agent) greet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	var all sync.WaitGroup
	for _, f := range a.fences {
		all.Go(func() { _, _ = f.Pass(ctx) })
	}
	all.Wait()
}

// openFence opens a fence to another host, for as many rounds as the set-up says.
func (a *agent) openFence(s *script.Setup, here, there netip.Addr) (*socket.Fencer, error) {
	f, err := socket.OpenFence(here, there)
	if err != nil {
		return nil, err
	}
	f.Rounds = s.Rounds
	if runtime.GOOS == "freebsd" && s.Remote {
		if err := f.Drain(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if !a.opt.Ephemeral || runtime.GOOS != "linux" { // a jail ends with its processes, too
		f.Timeout = realFence
	}
	return f, nil
}

// withoutTimestamps has a lab's host send and take TCP packets without timestamps.
func (a *agent) withoutTimestamps() error {
	if !a.opt.Ephemeral {
		return errors.New("TCP's timestamps are left out in a lab only")
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_timestamps", []byte("0\n"), 0); err != nil {
		return fmt.Errorf("switch TCP's timestamps off: %w", err)
	}
	return nil
}

// breakHost breaks a lab's host as it is asked to.
func (a *agent) breakHost(ctx context.Context, s *script.Setup) error {
	h := inject.BrokenHost{Remote: s.Remote, Interface: a.opt.Interface, Fakes: s.Fakes,
		Run: program.ExecBy(socket.Start)}
	if !a.opt.Ephemeral {
		h.Journal = func(u pfconf.Undo) error {
			if err := a.hold.Journal(u); err != nil {
				return err
			}
			a.broken = append(a.broken, u)
			return nil
		}
	}
	for _, p := range s.Paths {
		h.Paths = append(h.Paths, inject.AddressPair(p))
		if h.Interface == "" {
			var err error
			if h.Interface, err = interfaceOf(p.Here); err != nil {
				return err
			}
		}
	}
	for _, step := range s.Break {
		err := h.Do(ctx, step)
		if errors.Is(err, inject.ErrLacks) {
			return &script.Error{Code: script.CodeUnsupported, Text: "break the host: " + err.Error()}
		}
		if err != nil {
			return fmt.Errorf("break the host: %w", err)
		}
	}
	// An interface that was down for a moment drops packets until the kernel has got round to it,
	// on either host (linkwatch, net/core/link_watch.c).
	for _, f := range a.fences {
		if len(s.Break) > 0 {
			if _, err := f.Pass(ctx); err != nil {
				return fmt.Errorf("break the host: it does not hear the other one any more: %w", err)
			}
		}
	}
	return nil
}

// takeHost takes a real host for a run that it is fit for.
func (a *agent) takeHost(ctx context.Context, s *script.Setup) error {
	var err error
	a.hold, err = Take(ctx, HoldOptions{
		Dir:      a.opt.StateDir,
		Remote:   s.Remote,
		By:       printable(s.By),
		Patience: time.Duration(s.WaitSeconds) * time.Second,
		Tell:     a.notice,
	})
	if err != nil {
		return err
	}
	if err := unfit(a.check(ctx, s, true)); err != nil {
		return err
	}
	if s.Remote {
		return nil
	}
	return a.hold.addRoutes(ctx, routesTo(s))
}

// sweeper is a state table whose states of a network can be removed at once: pf's, where LOCAL
// has its own of the cells' flows.
type sweeper interface {
	KillNetwork(ctx context.Context, p netip.Prefix) error
}

// undo closes what is open and puts back what was changed. A second call does
// nothing.
func (a *agent) undo() error {
	a.mu.Lock()
	sessions := a.sessions
	a.sessions = map[string]*session{}
	a.mu.Unlock()
	for _, s := range sessions {
		s.mu.Lock()
		s.close()
		s.mu.Unlock()
	}
	// Not before: a step holds its session while it asks for a fence or the filter.
	a.setup.Lock()
	defer a.setup.Unlock()
	var errs []error
	for _, f := range a.fences {
		errs = append(errs, f.Close())
	}
	a.fences = nil
	if a.trace != nil {
		errs = append(errs, a.trace.remove())
		a.trace = nil
	}
	if a.seen != nil {
		errs = append(errs, a.seen.Close())
	}
	if log := a.log.Swap(nil); log != nil {
		errs = append(errs, log.Close())
	}
	ctx, cancel := context.WithTimeout(context.Background(), UndoTimeout)
	defer cancel()
	if a.fw != nil && !a.opt.Ephemeral {
		errs = append(errs, a.fw.Close(ctx))
	}
	if s, ok := a.table.(sweeper); ok {
		for _, f := range a.fakes {
			errs = append(errs, s.KillNetwork(ctx, f))
		}
	}
	a.fw, a.table, a.seen = nil, nil, nil
	for _, u := range slices.Backward(a.broken) {
		errs = append(errs, inject.Undo(ctx, program.Exec, u))
	}
	a.broken = nil
	if a.lab != nil {
		errs = append(errs, a.lab.Close(ctx))
		a.lab = nil
	}
	if a.hold != nil {
		errs = append(errs, a.hold.End(ctx, errors.Join(errs...) == nil))
		a.hold = nil
	}
	return errors.Join(errs...)
}

// fenceTo is where a fence goes: to the other host, or to the one beyond it.
type fenceTo struct {
	family pfconf.Family
	beyond bool
}

func (to fenceTo) String() string {
	if to.beyond {
		return fmt.Sprintf("the third host of %v", to.family)
	}
	return to.family.String()
}

// fence returns the fence that goes somewhere.
func (a *agent) fence(to fenceTo) (*socket.Fencer, error) {
	a.setup.Lock()
	defer a.setup.Unlock()
	if a.fences[to] == nil {
		return nil, fmt.Errorf("no fence is set up for %v", to)
	}
	return a.fences[to], nil
}

// buildBSD builds a lab on this system. A test replaces it.
var buildBSD = func(ctx context.Context, c bsd.Layout, journal pfconf.Journal) (*bsd.Lab, error) {
	return bsd.Build(ctx, runtime.GOOS, c, program.ExecBy(socket.Start), journal)
}

// buildLab builds a lab on this host, for two other agents. This one undoes it when it
// undoes all.
func (a *agent) buildLab(ctx context.Context, l *LabRequest) (*bsd.Lab, error) {
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
