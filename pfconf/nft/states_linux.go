package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/netlink"
)

// listing is a caller's wish to see the whole conntrack table. The kernel walks
// all its buckets for that, 3 to 4 ms on an idle machine, so those who wish it
// at the same time share one.
type listing struct {
	entries []entry // not to be changed: others have them too
	err     error
}

func (f *Firewall) list(wishes []*listing) {
	f.ct.mu.Lock()
	defer f.ct.mu.Unlock()
	entries, err := f.ct.dumpEntries()
	for _, w := range wishes {
		w.entries, w.err = entries, err
	}
}

func (f *Firewall) entries(ctx context.Context) ([]entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := &listing{}
	f.lists.ask(w)
	if w.err != nil {
		return nil, fmt.Errorf("list the conntrack table: %w", noConntrack(w.err))
	}
	return w.entries, nil
}

// States lists the conntrack table; see pfconf.StateTable. Near is the end
// whose address is a fake one or the host's own.
func (f *Firewall) States(ctx context.Context) ([]pfconf.State, error) {
	entries, err := f.entries(ctx)
	if err != nil {
		return nil, err
	}
	own, err := f.host.addresses()
	if err != nil {
		return nil, err
	}
	near := func(a netip.Addr) bool { return f.config.ours(a) || own[a] }
	states := make([]pfconf.State, len(entries))
	for i, e := range entries {
		// A forwarded flow has no near end; it is shown as it came in.
		states[i] = e.state(near(e.orig.src.Addr()) && !f.config.ours(e.orig.dst.Addr()))
	}
	return states, nil
}

// state puts the entry into pfconf's terms; out says that Near began.
func (e entry) state(out bool) pfconf.State {
	s := pfconf.State{
		Family: e.orig.family, Number: int(e.orig.number), Direction: pfconf.In,
		Near: e.orig.dst, Far: e.orig.src,
		Phase: e.phase(), Expires: e.timeout, Mark: e.mark,
	}
	if s.Number == pfconf.ICMP.Number(s.Family) {
		// As pf shows it: the id with who began, the type with the other.
		s.Far = netip.AddrPortFrom(s.Far.Addr(), e.orig.echo.id)
		s.Near = netip.AddrPortFrom(s.Near.Addr(), uint16(e.orig.echo.kind))
	}
	if out {
		s.Direction, s.Near, s.Far = pfconf.Out, s.Far, s.Near
	}
	return s
}

// tuples are those by which the flow's entries are found: one finds an entry
// whichever side began, but for ICMP, where only requests begin, one for each.
// There are none for ICMP with any id.
func tuples(fl pfconf.Flow) []tuple {
	t := tuple{family: fl.Family, number: uint8(fl.Proto.Number(fl.Family)), src: fl.Far, dst: fl.Near, zone: fl.Zone}
	if fl.Proto != pfconf.ICMP {
		return []tuple{t}
	}
	if fl.Echo == 0 {
		return nil
	}
	t.echo = echo{id: fl.Echo, kind: icmpEcho6}
	if fl.Family == pfconf.Inet {
		t.echo.kind = icmpEcho4
	}
	back := t
	back.src, back.dst = t.dst, t.src
	return []tuple{t, back}
}

// of reports whether the entry is one of the ICMP flow's, with any id.
func (e entry) of(fl pfconf.Flow) bool {
	src, dst := e.orig.src.Addr(), e.orig.dst.Addr()
	near, far := fl.Near.Addr(), fl.Far.Addr()
	return e.orig.family == fl.Family && int(e.orig.number) == fl.Proto.Number(fl.Family) &&
		(src == near && dst == far || src == far && dst == near)
}

// found is where a flow's entries are to be looked for.
type found struct {
	tuples []tuple
	flow   []int // of each tuple
	listed []int // flows that need the listing
}

func search(flows []pfconf.Flow) (found, error) {
	var s found
	for i, fl := range flows {
		if pfconf.FamilyOf(fl.Near.Addr()) != fl.Family || pfconf.FamilyOf(fl.Far.Addr()) != fl.Family {
			return s, fmt.Errorf("flow %d: %v and %v are not both %v", i, fl.Near, fl.Far, fl.Family)
		}
		ts := tuples(fl)
		if ts == nil {
			s.listed = append(s.listed, i)
		}
		for _, t := range ts {
			s.tuples = append(s.tuples, t)
			s.flow = append(s.flow, i)
		}
	}
	return s, nil
}

// Lookup returns each flow's states; see pfconf.StateTable.
func (f *Firewall) Lookup(ctx context.Context, flows []pfconf.Flow) ([][]pfconf.State, error) {
	s, err := search(flows)
	if err != nil {
		return nil, fmt.Errorf("look up states: %w", err)
	}
	states := make([][]pfconf.State, len(flows))
	put := func(i int, e entry) {
		states[i] = append(states[i], e.state(e.orig.src.Addr() == flows[i].Near.Addr()))
	}
	var failed error
	f.ct.mu.Lock()
	err = f.ct.each(ctGet, 0, s.tuples, nil, func(i int, m netlink.Message) {
		if m.Kind == unix.NLMSG_ERROR {
			if m.Errno != unix.ENOENT {
				failed = m.Errno
			}
			return
		}
		e, err := parseEntry(m.Netfilter())
		if err != nil {
			failed = err
			return
		}
		put(s.flow[i], e)
	})
	f.ct.mu.Unlock()
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, fmt.Errorf("look up states: %w", noConntrack(err))
	}
	if len(s.listed) > 0 {
		entries, err := f.entries(ctx)
		if err != nil {
			return nil, err
		}
		for _, i := range s.listed {
			for _, e := range entries {
				if e.of(flows[i]) {
					put(i, e)
				}
			}
		}
	}
	return states, nil
}

// probeConntrack asks for an entry that cannot be.
func (f *Firewall) probeConntrack() ProbeResult {
	loop := netip.AddrPortFrom(pfconf.Inet.Loopback(), 0)
	_, err := f.Lookup(context.Background(),
		[]pfconf.Flow{{Family: pfconf.Inet, Proto: pfconf.Raw, Near: loop, Far: loop}})
	var missing *need.MissingError
	switch {
	case err == nil:
		return ProbeResult{Support: Yes}
	case errors.As(err, &missing):
		return ProbeResult{No, err}
	}
	return refusal(err)
}

// noConntrack makes a *MissingError of the error by which nfnetlink refuses
// messages for a subsystem that is not there (nfnetlink_rcv_msg).
func noConntrack(err error) error {
	if err == unix.EINVAL || err == unix.EOPNOTSUPP {
		return &need.MissingError{Feature: need.CTNetlink, Err: err}
	}
	return err
}
