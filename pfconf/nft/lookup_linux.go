package nft

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/bpf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/rtnetlink"
)

// lookups are the rules of the program in the search for a socket: entries of its map.
type lookups struct {
	*bpf.Lookup       // nil if missing is set
	host        *host // which knows the interfaces' numbers
	missing     error // a *need.MissingError if the kernel takes no such program
}

// addLookup attaches the program to the network namespace. A kernel that has none refuses each
// rule.
func (f *Firewall) addLookup() (err error) {
	l := &lookups{host: f.host}
	f.beside = l
	config := f.config.programs()
	config.Detached, config.NoSocks = f.config.omits(Programs), f.config.omits(SockMap)
	l.Lookup, err = bpf.OpenLookup(config)
	var missing *need.MissingError
	if errors.As(err, &missing) {
		l.missing, err = err, nil
	}
	return err
}

func (l *lookups) close() error {
	if l.Lookup == nil {
		return nil
	}
	return l.Lookup.Close()
}

// entry is a rule's.
func (l *lookups) entry(k kernelRule) bpf.Entry { return *k.bpf }

// numbered is a rule's entry, with the number that its interface has now: a bridge can have taken
// the name over.
func (l *lookups) numbered(k kernelRule) bpf.Entry {
	e := l.entry(k)
	if e.Interface == "" {
		return e
	}
	e.Index = noInterface
	if link, err := l.host.route.Link(e.Interface); err == nil {
		e.Index = link.Index
	}
	return e
}

func (l *lookups) load(from, to map[string]*loaded) error {
	if l.missing != nil { // so none was loaded before
		return l.missing
	}
	return l.Change(entriesOf(from, to, l.entry), entriesOf(to, from, l.numbered))
}

func (l *lookups) count(rules map[string]*loaded, read map[string]pfconf.Counters) error {
	for label, c := range read {
		for _, k := range rules[label].beside {
			n, err := l.Counters(l.entry(k))
			if err != nil {
				return err
			}
			c = k.part.add(c, n.Matched, n.Done)
		}
		read[label] = c
	}
	return nil
}

// lookupRoute makes a prefix local to all packets: the kernel looks for sockets for these alone.
func lookupRoute(p netip.Prefix) rtnetlink.Route {
	r := localRoute(p)
	r.Table = unix.RT_TABLE_LOCAL
	return r
}

func (h *host) addLookupRoute(p netip.Prefix) error {
	err := h.route.AddRoute(lookupRoute(p))
	if errors.Is(err, unix.EEXIST) {
		return &TakenError{fmt.Sprintf("local route to %v", p)}
	}
	return wrap(fmt.Sprintf("add the local route to %v", p), err)
}

func (h *host) delLookupRoute(p netip.Prefix) error {
	return wrap(fmt.Sprintf("delete the local route to %v", p), absent(h.route.DeleteRoute(lookupRoute(p))))
}
