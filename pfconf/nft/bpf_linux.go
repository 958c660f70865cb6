package nft

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/bpf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/rtnetlink"
)

// programs are those of BPF, which interfaces have as filters of tc. The rules are entries of their
// map.
type programs struct {
	*bpf.Diverter                // nil if missing is set
	links         map[string]int // indexes of the interfaces that have them
	missing       error          // a *need.MissingError if the kernel takes none
}

// filterPriority is the filters' place among others of the interface, and what they are known by.
const filterPriority = Table

// clsact is the qdisc that has filters at ingress and egress (tc-bpf(8)).
const clsact = "clsact"

var hooks = []rtnetlink.Hook{rtnetlink.Ingress, rtnetlink.Egress}

// addBPF loads the programs and attaches them to the interface towards LOCAL, or to all but lo. A
// kernel that has none refuses each rule.
func (f *Firewall) addBPF() error {
	f.bpf = &programs{links: map[string]int{}}
	f.beside = f.bpf
	err := f.attachAll()
	var missing *need.MissingError
	if errors.As(err, &missing) {
		f.bpf.missing = err
		err = f.bpf.close()
		f.bpf.Diverter = nil
	}
	return err
}

func (f *Firewall) attachAll() (err error) {
	if f.bpf.Diverter, err = bpf.Open(f.config.programs()); err != nil {
		return err
	}
	links, err := f.host.route.Links()
	if err != nil {
		return fmt.Errorf("list the interfaces: %w", err)
	}
	for _, l := range links {
		if l.Index == loopback || f.config.Interface != "" && l.Name != f.config.Interface {
			continue
		}
		f.bpf.links[l.Name] = l.Index
		if err := f.attach(l); err != nil {
			return err
		}
	}
	return nil
}

// attach gives the interface the filters.
func (f *Firewall) attach(l rtnetlink.Link) error {
	u := pfconf.Undo{Do: undoBPF, Args: []string{l.Name}}
	has, err := f.host.route.HasClsact(l.Index)
	if err != nil {
		return fmt.Errorf("list the qdiscs of %s: %w", l.Name, err)
	}
	if !has {
		u.Args = append(u.Args, clsact)
	}
	return f.step(u, func() error {
		err := f.addFilters(l)
		var taken *TakenError
		if err != nil && !errors.As(err, &taken) {
			err = errors.Join(err, f.host.delBPF(l.Name, len(u.Args) == 2))
		}
		return err
	})
}

func (f *Firewall) addFilters(l rtnetlink.Link) error {
	route := f.host.route
	err := route.AddClsact(l.Index)
	if errors.Is(err, unix.ENOENT) {
		return &need.MissingError{Feature: need.BPF, Err: fmt.Errorf("add qdisc clsact to %s: %w", l.Name, err)}
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return wrap("add qdisc clsact to "+l.Name, err)
	}
	in, out := f.bpf.Programs()
	for i, program := range []int{in, out} {
		if f.config.omits(Programs) || hooks[i] == rtnetlink.Egress && f.config.omits(Egress) {
			continue
		}
		filter := filterOf(l.Index, hooks[i])
		filter.Name, filter.Program = TableName, program
		err := route.AddFilter(filter)
		switch {
		case errors.Is(err, unix.EEXIST):
			return &TakenError{fmt.Sprintf("filter of priority %d at %s", filterPriority, l.Name)}
		case errors.Is(err, unix.ENOENT):
			return &need.MissingError{Feature: need.BPF, Err: fmt.Errorf("add a filter to %s: %w", l.Name, err)}
		case err != nil:
			return wrap("add a filter to "+l.Name, err)
		}
	}
	return nil
}

func filterOf(link int, hook rtnetlink.Hook) rtnetlink.BPFFilter {
	return rtnetlink.BPFFilter{Link: link, Hook: hook, Priority: filterPriority}
}

// delBPF takes the filters from the interface, and the qdisc if it was made for them, unless
// another process has filters there.
func (h *host) delBPF(name string, made bool) error {
	l, err := h.route.Link(name)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at interface %s: %w", name, err)
	}
	left := 0
	for _, hook := range hooks {
		all, err := h.route.Filters(l.Index, hook)
		if err != nil && !errors.Is(err, unix.EINVAL) { // no qdisc
			return fmt.Errorf("list the filters of %s: %w", name, err)
		}
		theirs := slices.DeleteFunc(slices.Clone(all), func(f rtnetlink.Filter) bool {
			return f.Priority == filterPriority
		})
		if !slices.Contains(all, rtnetlink.Filter{Kind: "bpf", Priority: filterPriority, Name: TableName}) {
			left += len(all) // one of that priority may be another's
			continue
		}
		left += len(theirs)
		err = absent(h.route.DeleteFilter(filterOf(l.Index, hook)))
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return wrap("remove the filter from "+name, err)
		}
	}
	if !made || left > 0 {
		return nil
	}
	if err := absent(h.route.DeleteClsact(l.Index)); err != nil && !errors.Is(err, unix.EINVAL) {
		return wrap("remove qdisc clsact from "+name, err)
	}
	return nil
}

func (p *programs) close() error {
	if p.Diverter == nil {
		return nil
	}
	return p.Diverter.Close()
}

// entriesOf are those of the rules of one set that another one has not.
func entriesOf(of, without map[string]*loaded, entry func(kernelRule) bpf.Entry) []bpf.Entry {
	var all []bpf.Entry
	for label, l := range of {
		if without[label] == l {
			continue
		}
		for _, k := range l.beside {
			all = append(all, entry(k))
		}
	}
	return all
}

// noInterface is the number of none: an entry with it matches nothing.
const noInterface = math.MaxInt32

// entry is a rule's, with the number of its interface.
func (p *programs) entry(k kernelRule) bpf.Entry {
	e := *k.bpf
	if e.Interface != "" {
		e.Index = cmp.Or(p.links[e.Interface], noInterface)
	}
	return e
}

func (p *programs) load(from, to map[string]*loaded) error {
	if p.missing != nil { // so none was loaded before
		return p.missing
	}
	return p.Change(entriesOf(from, to, p.entry), entriesOf(to, from, p.entry))
}

func (p *programs) count(rules map[string]*loaded, read map[string]pfconf.Counters) error {
	for label, c := range read {
		for _, k := range rules[label].beside {
			n, err := p.Counters(p.entry(k))
			if err != nil {
				return err
			}
			c = k.part.add(c, n.Matched, n.Done)
			c.Replies += n.Own
		}
		read[label] = c
	}
	return nil
}

// forget removes what the programs remember of flows, whichever end is the near one.
func (p *programs) forget(tuples []tuple) error {
	if p.missing != nil {
		return nil
	}
	var flows []bpf.Flow
	for _, t := range tuples {
		if t.echo.id != 0 {
			t.src, t.dst = netip.AddrPortFrom(t.src.Addr(), t.echo.id), netip.AddrPortFrom(t.dst.Addr(), t.echo.id)
		}
		flows = append(flows, bpf.Flow{Number: t.number, Near: t.src, Far: t.dst},
			bpf.Flow{Number: t.number, Near: t.dst, Far: t.src})
	}
	return p.Forget(flows)
}

// asAnswer is what a probe's error says.
func asAnswer(err error) ProbeResult {
	var missing *need.MissingError
	switch {
	case err == nil:
		return ProbeResult{Support: Yes}
	case errors.As(err, &missing):
		return ProbeResult{No, err}
	}
	return ProbeResult{Unknown, err}
}
