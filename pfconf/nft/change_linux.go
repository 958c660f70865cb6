package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/netlink"
)

// loaded is a rule in force.
type loaded struct {
	rule   pfconf.Rule
	number int // in the order in which they were added
	parts  []placed
	beside []kernelRule // that Firewall.beside has
	// base is what those of iptables-legacy had counted before they were loaded last;
	// Firewall.legacy guards it.
	base pfconf.Counters
	// inForce: the transaction that added it was made.
	inForce bool
}

// change is what one caller of Change or Load wants.
type change struct {
	ctx    context.Context
	add    []pfconf.Rule
	remove []string
	all    bool // remove all
	err    error
}

// Change adds and removes rules; see pfconf.Firewall.
func (f *Firewall) Change(ctx context.Context, add []pfconf.Rule, remove []string) error {
	return f.change(&change{ctx: ctx, add: add, remove: remove})
}

// Load replaces the rules; see pfconf.Firewall.
func (f *Firewall) Load(ctx context.Context, rules []pfconf.Rule) error {
	return f.change(&change{ctx: ctx, add: rules, all: true})
}

// ChangeEach makes the changes in one transaction; see pfconf.Gatherer.
func (f *Firewall) ChangeEach(ctx context.Context, changes []pfconf.Change) []error {
	all, errs := make([]*change, len(changes)), make([]error, len(changes))
	for i, c := range changes {
		all[i] = &change{ctx: ctx, add: c.Add, remove: c.Remove}
	}
	f.ask(all...)
	for i, c := range all {
		errs[i] = c.told()
	}
	return errs
}

func (f *Firewall) change(c *change) error {
	f.ask(c)
	return c.told()
}

// ask has the changes made.
func (f *Firewall) ask(changes ...*change) {
	for _, c := range changes {
		if slices.ContainsFunc(c.add, func(r pfconf.Rule) bool { return r.Action == pfconf.DivertPacket }) {
			queueWay() // others' changes need not wait for that
		}
	}
	f.changes.ask(changes...)
}

// told is the error that the caller gets.
func (c *change) told() error {
	if c.err != nil {
		return fmt.Errorf("change the rules of table inet %s: %w", TableName, c.err)
	}
	return nil
}

// plan is a transaction that several changes share.
type plan struct {
	request *request
	changed bool               // a rule is added or removed
	owner   map[uint32]*change // of each message
	rules   map[string]*loaded // what is in force afterwards
	places  map[uint32]place   // of each added kernel rule
	queues  map[queue]bool     // whose chains are there afterwards
	zones   map[uint16]bool    // as well
	chains  map[uint32]chain   // that a message makes or drops
	natted  []pfconf.Family    // whose chains of x_tables for rdr-to rules are there afterwards
}

// place is where an added rule's handle goes when the kernel tells it.
type place struct {
	rule *loaded
	part int
}

// commitChanges makes the changes in one transaction. A change that the kernel
// rejects, or that does not fit the rules in force, does not fail the others'.
func (f *Firewall) commitChanges(changes []*change) {
	f.tx.mu.Lock()
	defer f.tx.mu.Unlock()
	// A Load removes by handles, and what is added with it has none yet.
	for len(changes) > 0 {
		n := slices.IndexFunc(changes, func(c *change) bool { return c.all })
		switch n {
		case -1:
			n = len(changes)
		case 0:
			n = 1
		}
		f.commitLocked(slices.Clone(changes[:n]))
		changes = changes[n:]
	}
}

func (f *Firewall) commitLocked(changes []*change) {
	for {
		p := f.plan(changes)
		changes = slices.DeleteFunc(changes, func(c *change) bool { return c.err != nil })
		if !p.changed {
			return
		}
		rejected, err := f.send(p)
		switch {
		case err != nil && len(changes) > 1:
			// No one in particular is to blame (the transaction was too large for
			// the socket, say).
			f.commitLocked(changes[:len(changes)/2])
			f.commitLocked(changes[len(changes)/2:])
			return
		case err != nil:
			changes[0].err = err
			for _, r := range changes[0].add {
				if f.beside != nil && changes[0].err == err {
					changes[0].err = f.lacks(r, err)
				}
			}
			return
		case len(rejected) == 0:
			for _, l := range p.rules {
				if !l.inForce { // no one else knows it yet
					l.inForce = true
				}
			}
			f.mu.Lock()
			f.rules = p.rules
			f.mu.Unlock()
			f.queues, f.zones, f.natted = p.queues, p.zones, p.natted
			return
		}
		for seq := p.request.First; seq != p.request.First+p.request.Count; seq++ {
			if errno, c := rejected[seq], p.owner[seq]; errno != 0 && c.err == nil {
				c.err = f.explain(p, seq, errno)
			}
		}
		changes = slices.DeleteFunc(changes, func(c *change) bool { return c.err != nil })
	}
}

// plan puts the changes that are possible into one transaction; the others get
// their errors.
func (f *Firewall) plan(changes []*change) *plan {
	p := &plan{
		request: f.tx.transaction(),
		owner:   map[uint32]*change{},
		rules:   maps.Clone(f.rules),
		places:  map[uint32]place{},
		queues:  maps.Clone(f.queues),
		zones:   maps.Clone(f.zones),
		chains:  map[uint32]chain{},
		natted:  f.natted,
	}
	for _, c := range changes {
		compiled, err := f.check(p, c)
		if err != nil {
			c.err = err
			continue
		}
		remove := c.remove
		if c.all {
			remove = slices.Collect(maps.Keys(p.rules))
		}
		for _, label := range remove {
			for _, h := range p.rules[label].parts {
				p.owner[p.request.delRule(h)] = c
			}
			p.changed = true
			delete(p.rules, label)
		}
		for i, r := range c.add {
			switch r.Action {
			case pfconf.DivertPacket:
				if !f.config.xt() {
					p.needQueue(c, queueOf(r))
				}
			case pfconf.RdrTo:
				p.needNAT(c, r.Family, f.config)
			}
			if r.Translated.IsValid() && f.config.xt() {
				p.needNAT(c, r.Family, f.config)
			}
			if r.Zone != 0 && !p.zones[r.Zone] {
				p.keepChain(c, zoneRule(r.Zone))
				p.zones[r.Zone] = true
			}
			f.added++
			l := &loaded{rule: r, number: f.added}
			p.changed = true
			for _, k := range compiled[i] {
				if f.beside != nil && (k.xt != nil || k.bpf != nil) {
					l.beside = append(l.beside, k)
					continue
				}
				if k.chain == snat || k.chain == outRoute {
					seq := p.request.newChain(k.chain)
					p.owner[seq], p.chains[seq] = c, k.chain
				}
				seq := p.request.newRule(k, unix.NLM_F_ECHO)
				p.owner[seq], p.places[seq] = c, place{l, len(l.parts)}
				l.parts = append(l.parts, placed{chain: k.chain, part: k.part})
			}
			p.rules[r.Label] = l
		}
	}
	return p
}

// needNAT makes the chain for rules that translate, where it is not there.
func (p *plan) needNAT(c *change, f pfconf.Family, config Config) {
	own := func(seq uint32, ch chain) { p.owner[seq], p.chains[seq] = c, ch }
	switch {
	case config.legacy(): // the kernel makes them, with the table
	case !config.xt():
		own(p.request.newChain(rdr), rdr)
	case !slices.Contains(p.natted, f):
		at := natted(f)
		for seq := p.request.hook(false, at...); seq != p.request.First+p.request.Count; seq++ {
			own(seq, at[0].hook)
		}
		p.natted = append(slices.Clone(p.natted), f)
	}
}

// check reports whether the change can be made to the rules that the plan has so
// far, and compiles what it adds.
func (f *Firewall) check(p *plan, c *change) ([][]kernelRule, error) {
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	if f.closed.Load() {
		return nil, ErrClosed
	}
	gone := map[string]bool{}
	for _, label := range c.remove {
		// A rule that is not in force was added by another of these changes, which
		// may yet fail: to this one it is not there.
		if l := p.rules[label]; l == nil || !l.inForce || gone[label] {
			return nil, fmt.Errorf("remove rule %q: no such rule is loaded", label)
		}
		gone[label] = true
	}
	compiled := make([][]kernelRule, len(c.add))
	added := map[string]bool{}
	for i, r := range c.add {
		if p.rules[r.Label] != nil && !gone[r.Label] && !c.all || added[r.Label] {
			return nil, fmt.Errorf("add rule %q: a rule with this label is loaded", r.Label)
		}
		added[r.Label] = true
		if r.Action == pfconf.DivertPacket {
			if err := queueWay().err(); err != nil {
				return nil, fmt.Errorf("add rule %q: %w", r.Label, err)
			}
		}
		var err error
		if compiled[i], err = f.config.compile(r); err != nil {
			return nil, err
		}
		if !slices.Contains(f.families, r.Family) {
			return nil, fmt.Errorf("add rule %q: no %v prefix is diverted on this host", r.Label, r.Family)
		}
		if err := f.prepare(r); err != nil {
			return nil, fmt.Errorf("add rule %q: %w", r.Label, err)
		}
	}
	return compiled, nil
}

// send commits the plan and learns the new rules' handles.
func (f *Firewall) send(p *plan) (rejected map[uint32]unix.Errno, err error) {
	if f.beside != nil {
		if err := f.beside.load(f.rules, p.rules); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil || len(rejected) > 0 {
				err = errors.Join(err, f.beside.load(p.rules, f.rules))
			}
		}()
	}
	if len(p.owner) == 0 { // there is nothing for nf_tables in it
		return nil, nil
	}
	learned := 0
	rejected, err = f.tx.commit(p.request, func(m netlink.Message) {
		if at, ok := p.places[m.Seq]; ok && m.Kind == newRuleMessage {
			if h, err := handleOf(m); err == nil {
				at.rule.parts[at.part].handle = h
				learned++
			}
		}
	})
	if len(rejected) > 0 || (err == nil && learned == len(p.places)) ||
		(err != nil && !errors.Is(err, netlink.ErrLost)) {
		return rejected, err
	}
	return nil, f.learn(p)
}

// learn finds out by listing the table what happened to the plan, and the added
// rules' handles, when the kernel's answers were lost.
func (f *Firewall) learn(p *plan) error {
	// What a rule of a label does in one chain is done once.
	handles, there := map[string]uint64{}, map[ruleKey]bool{}
	err := f.tx.dumpRules(f.config.xt(), func(m netlink.Message) {
		if k, err := keyOf(m); err == nil {
			handles[k.table.String()+commentOf(m)], there[k] = k.handle, true
		}
	})
	if err != nil {
		return err
	}
	for label, l := range f.rules {
		if p.rules[label] != l && there[l.parts[0].key()] {
			return fmt.Errorf("rule %q: %w, and it is still loaded", label, netlink.ErrLost)
		}
	}
	for _, at := range p.places {
		h := &at.rule.parts[at.part]
		label := at.rule.rule.Label
		h.handle = handles[h.chain.table.String()+kernelRule{label: label, part: h.part}.comment()]
		if h.handle == 0 {
			return fmt.Errorf("rule %q: %w, and it is not loaded", label, netlink.ErrLost)
		}
	}
	return nil
}

// lacks makes a *MissingError of an error with which the kernel refused a rule for want of a
// feature.
func (f *Firewall) lacks(r pfconf.Rule, err error) error {
	var feature need.Name
	switch {
	case r.Action == pfconf.RdrTo && f.config.xt():
		feature = need.XTNAT
	case r.Redirects() && f.Probe(need.NAT).Support == Yes:
		feature = need.Redirect
	case r.Action == pfconf.RdrTo:
		feature = need.NAT
	case r.Zone != 0:
		feature = need.Zones
	case r.Translated.IsValid() && !errors.Is(err, unix.ENOENT):
		feature = need.NAT
	case !errors.Is(err, unix.ENOENT):
		return err
	case f.config.xt() && f.probeXT(need.XTMark, r.Family).Support == No:
		feature = need.XTMark
	case (r.Established || r.Translated.IsValid()) && f.Probe(f.config.socketMatch()).Support == No:
		feature = f.config.socketMatch()
	case r.Action == pfconf.DivertTo && r.Proto.HasPorts() && f.config.xt():
		feature = need.XTTProxy
	case r.Action == pfconf.DivertTo && r.Proto.HasPorts():
		feature = need.TProxy
	case r.Action == pfconf.DivertPacket && f.config.xt():
		feature = need.XTQueue
	default:
		return err
	}
	probe := f.Probe
	if f.config.xt() {
		probe = func(feature need.Name) ProbeResult { return f.probeXT(feature, r.Family) }
	}
	if probe(feature).Support == No {
		return &need.MissingError{Feature: feature, Err: err}
	}
	return err
}

// socketMatch is the feature by which a rule knows the packets of transparent sockets.
func (c Config) socketMatch() need.Name {
	if c.xt() {
		return need.XTSocket
	}
	return need.SocketMatch
}

// explain says what the kernel found wrong with the message.
func (f *Firewall) explain(p *plan, seq uint32, errno unix.Errno) error {
	var what string
	at, added := p.places[seq]
	ch, chained := p.chains[seq]
	switch {
	case added:
		what = fmt.Sprintf("add rule %q", at.rule.rule.Label)
	case chained:
		what = "chain " + ch.name
	default:
		return fmt.Errorf("remove a rule: %w", errno)
	}
	var err error = errno
	if chained && ch.kind() == "nat" {
		err = f.lacks(pfconf.Rule{Action: pfconf.RdrTo, Family: ch.table.of()}, err)
	} else if chained && strings.HasPrefix(ch.name, "zone-") {
		err = f.lacks(pfconf.Rule{Action: pfconf.DivertTo, Zone: 1}, err)
	} else if added {
		err = f.lacks(at.rule.rule, err)
	}
	if err != errno || errno != unix.ENOENT {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w (has another process removed table inet %s?)", what, errno, TableName)
}
