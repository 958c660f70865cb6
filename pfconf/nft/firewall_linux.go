package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
)

// Firewall is a pfconf.Firewall of the network namespace that it was opened in.
type Firewall struct {
	config   Config
	families []pfconf.Family // that the kernel has and Fakes needs
	host     *host
	undo     []pfconf.Undo // of what was changed, in order
	closed   atomic.Bool

	tx *socket // transactions: the host's
	rx *socket // reading rules, and probes
	ct *socket // conntrack

	legacy *legacy   // for pfconf.XTLegacy
	bpf    *programs // for pfconf.BPF
	beside beside    // that of the two which there is, the rules of pfconf.BPFLookup, or nil

	changes group[*change]
	reads   group[*question]
	lists   group[*listing]

	queues map[queue]bool  // queues whose chains are there; tx.mu guards it
	zones  map[uint16]bool // zones whose chains are there, as well
	natted []pfconf.Family // see plan; tx.mu guards it
	added  int             // rules, ever; tx.mu guards it
	local  []netip.Addr    // those that prepare made local; tx.mu guards it

	mu    sync.RWMutex
	rules map[string]*loaded // by label; the map is replaced, never changed
}

var _ pfconf.Firewall = (*Firewall)(nil)

// Open takes the firewall of the current network namespace into use: it makes
// table inet pfdivert, the policy route for the fake prefixes and sets
// net.ipv4.ip_early_demux to 0. A family that the kernel lacks is left out.
// The error can be a *MissingError, a *TakenError, a *ForeignRuleError, a *LoopbackDownError or
// wrap fs.ErrPermission; then nothing has been changed.
func Open(ctx context.Context, c Config) (*Firewall, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	WarmUp()
	h, err := openHost()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	f := &Firewall{config: c, host: h, tx: h.nf, rules: map[string]*loaded{}, queues: map[queue]bool{},
		zones: map[uint16]bool{}}
	f.changes.do, f.reads.do, f.lists.do = f.commitChanges, f.answer, f.list
	f.rx, err = openSocket()
	if err == nil {
		f.ct, err = openSocket()
	}
	if err == nil {
		err = f.setUp()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open nftables: %w", err), f.putBack())
	}
	return f, nil
}

// beside holds rules that are not nf_tables' own.
type beside interface {
	// load makes the change from the rules of one set to those of another, or none of it.
	load(from, to map[string]*loaded) error
	// count adds what the labels' rules have counted to what was read.
	count(rules map[string]*loaded, read map[string]pfconf.Counters) error
	close() error
}

// setUp changes the host.
func (f *Firewall) setUp() error {
	for _, family := range f.config.families() {
		if family == pfconf.Inet6 && probeIPv6().Support == No {
			continue
		}
		if err := f.host.routable(family); err != nil {
			return err
		}
		f.families = append(f.families, family)
	}
	if a := f.probeConntrack(); a.Support == No {
		for _, cause := range []need.Name{need.NFTables, need.Conntrack} { // without these there is none either
			if c := f.Probe(cause); c.Support == No {
				return &need.MissingError{Feature: cause, Err: c.Err}
			}
		}
		return a.Err
	}
	// The rules will mark conntrack entries.
	if err := f.step(pfconf.Undo{Do: undoStates}, func() error { return nil }); err != nil {
		return err
	}
	addTable := func() error { return f.host.addTable(f.config.chains(), f.config.permanent()) }
	if err := f.step(pfconf.Undo{Do: undoTable}, addTable); err != nil {
		return err
	}
	add := func() error { return nil }
	switch {
	case !pfconf.BuiltBPF:
	case f.config.bpf():
		add = f.addBPF
	case f.config.lookup():
		add = f.addLookup
	}
	if err := add(); err != nil {
		return err
	}
	for _, family := range slices.Clone(f.families) {
		if err := f.setUpFamily(family); err != nil {
			return err
		}
	}
	value, err := f.host.demuxValue()
	if err != nil || value == "0" || f.config.omits(EarlyDemux) {
		return err
	}
	return f.step(pfconf.Undo{Do: undoSysctl, Args: []string{value}}, func() error {
		return wrap("set net.ipv4.ip_early_demux to 0", f.host.setDemux("0"))
	})
}

func (f *Firewall) setUpFamily(family pfconf.Family) error {
	switch f.config.Engine {
	case pfconf.XT:
		if err := f.addXT(family); err != nil {
			return err
		}
	case pfconf.XTLegacy:
		if err := f.addLegacy(family); err != nil {
			return err
		}
	}
	if !f.config.omits(LocalRoute) {
		for _, p := range f.config.Fakes {
			if pfconf.FamilyOf(p.Addr()) != family {
				continue
			}
			undo, add := undoRoute, f.host.addRoute
			if f.config.lookup() {
				undo, add = undoLookup, f.host.addLookupRoute
			}
			err := f.step(pfconf.Undo{Do: undo, Args: []string{p.String()}}, func() error { return add(p) })
			if family == pfconf.Inet6 && errors.Is(err, unix.EACCES) {
				// "IPv6 is disabled on nexthop device": net.ipv6.conf.*.disable_ipv6.
				f.families = slices.DeleteFunc(f.families, func(x pfconf.Family) bool { return x == family })
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	if f.config.omits(PolicyRule) || f.config.lookup() {
		return nil
	}
	return f.step(pfconf.Undo{Do: undoRule, Args: []string{family.String()}},
		func() error { return f.host.addRule(family) })
}

// prepare changes of the host what the rule needs besides, until Close: whom this host's own
// packets are diverted from is local for marked ones, and packets from LOCAL may be for 127.0.0.1.
func (f *Firewall) prepare(r pfconf.Rule) error {
	switch to, _ := r.RedirectsTo(); {
	case r.DivertsOutput() && !slices.Contains(f.local, r.To):
		p := netip.PrefixFrom(r.To, r.To.BitLen())
		err := f.step(pfconf.Undo{Do: undoRoute, Args: []string{p.String()}},
			func() error { return f.host.addRoute(p) })
		if err == nil {
			f.local = append(f.local, r.To)
		}
		return err
	case to.Addr() == pfconf.Inet.Loopback() && !f.config.omits(RouteLocal):
		nic := cmp.Or(f.config.Interface, "all")
		value, err := os.ReadFile(localnetPath(nic))
		was := strings.TrimSpace(string(value))
		if err != nil || was == "1" {
			return err
		}
		return f.step(pfconf.Undo{Do: undoLocalnet, Args: []string{nic, was}},
			func() error { return setLocalnet(nic, "1") })
	}
	return nil
}

// step makes a change that u undoes.
func (f *Firewall) step(u pfconf.Undo, do func() error) error {
	if f.config.Journal != nil {
		if err := f.config.Journal(u); err != nil {
			return fmt.Errorf("write the journal: %w", err)
		}
	}
	err := do()
	if err == nil {
		f.undo = append(f.undo, u)
	}
	return err
}

// Families are the address families whose fake prefixes are diverted: those of
// Config.Fakes that the kernel has.
func (f *Firewall) Families() []pfconf.Family { return slices.Clone(f.families) }

// Name is "nftables".
func (f *Firewall) Name() string { return "nftables" }

// KeepsCounters is true.
func (f *Firewall) KeepsCounters() bool { return true }

// Close undoes all that Open and the changes did. A second Close does nothing.
func (f *Firewall) Close(ctx context.Context) error {
	if f.closed.Swap(true) {
		return nil
	}
	// What was asked for before is done when these are; later changes and
	// questions see that the firewall is closed.
	_ = f.change(&change{ctx: ctx})
	return f.putBack()
}

func (f *Firewall) putBack() error {
	var errs []error
	for _, u := range slices.Backward(f.undo) {
		errs = append(errs, f.host.undo(u))
	}
	if f.beside != nil {
		errs = append(errs, f.beside.close())
	}
	for _, s := range []*socket{f.rx, f.ct} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	if err := errors.Join(append(errs, f.host.close())...); err != nil {
		return fmt.Errorf("close nftables: %w", err)
	}
	return nil
}

// ours reports whether the address is one of the fake prefixes'.
func (c Config) ours(a netip.Addr) bool {
	return slices.ContainsFunc(c.Fakes, func(p netip.Prefix) bool { return p.Contains(a) })
}
