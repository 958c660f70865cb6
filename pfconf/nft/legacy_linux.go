package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/xt"
)

// legacy loads rules into the tables of iptables-legacy. A table is replaced as a whole; rules of
// another process in it keep it from being touched, because what they remember (limits, quotas)
// would begin anew with each load.
type legacy struct {
	mu      sync.Mutex
	sockets map[pfconf.Family]*xt.Socket
	natted  map[pfconf.Family]bool // the table nat was asked for, which makes it
	apart   bool                   // see Jump6
}

// legacyTables are those that hold rules of this program's.
var legacyTables = []string{"mangle", "nat"}

// addLegacy takes the tables of a family into use.
func (f *Firewall) addLegacy(family pfconf.Family) error {
	s, err := xt.Open(family == pfconf.Inet6)
	if err != nil {
		return err
	}
	if f.legacy == nil {
		f.legacy = &legacy{sockets: map[pfconf.Family]*xt.Socket{}, natted: map[pfconf.Family]bool{},
			apart: f.config.omits(Jump6)}
		f.host.legacy, f.beside = f.legacy, f.legacy
	}
	f.legacy.sockets[family] = s
	for _, name := range legacyTables {
		undo := pfconf.Undo{Do: undoLegacy, Args: []string{family.String(), name}}
		err := f.step(undo, func() error {
			if name != "mangle" {
				return nil // a kernel may be without NAT
			}
			_, err := f.legacy.replace(family, name, nil)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *legacy) close() error {
	var errs []error
	for _, s := range l.sockets {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// legacyTries bounds how often a table is read again that another process changed meanwhile.
const legacyTries = 10

// replace loads the rules in place of this program's others and returns what those had counted.
func (l *legacy) replace(family pfconf.Family, name string, rules []kernelRule) (map[string]uint64, error) {
	s := l.sockets[family]
	l.natted[family] = l.natted[family] || name == "nat"
	unlock, err := xt.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	for range legacyTries {
		var t *xt.Table
		if t, err = s.Table(name); err != nil {
			return nil, noLegacy(family, name, err)
		}
		if _, left := t.Remove(xtPrefix); left > 0 {
			return nil, &ForeignError{family, name, left}
		}
		hooks := mangled(family)
		if name == "nat" {
			hooks = natted(family)
		}
		for _, h := range hooks {
			if len(rules) == 0 {
				break
			}
			t.Chain(h.own)
			if l.apart && family == pfconf.Inet6 {
				continue
			}
			if err := t.Insert(h.hook.name, xt.Rule{Jump: h.own}); err != nil {
				return nil, err
			}
		}
		for _, k := range rules {
			r := *k.xt
			r.Matches = append(slices.Clone(r.Matches), xt.Comment(k.comment()))
			t.Add(k.chain.name, r)
		}
		if err = s.Load(t); err == nil {
			return t.Packets(xtPrefix), nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return nil, err
}

func (l *legacy) load(from, to map[string]*loaded) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var undo []func() error
	for _, family := range pfconf.Families {
		for _, name := range legacyTables {
			before, after := legacyRules(from, family, name), legacyRules(to, family, name)
			if slices.EqualFunc(before, after, func(a, b kernelRule) bool { return a.xt == b.xt }) {
				continue
			}
			if err := l.swap(family, name, from, to, after); err != nil {
				for _, u := range undo {
					err = errors.Join(err, u())
				}
				return err
			}
			undo = append(undo, func() error { return l.swap(family, name, to, from, before) })
		}
	}
	return nil
}

// swap loads the rules of the set to in place of those of from, and keeps what those that stay have
// counted.
func (l *legacy) swap(family pfconf.Family, name string, from, to map[string]*loaded, rules []kernelRule) error {
	counted, err := l.replace(family, name, rules)
	if err != nil {
		return err
	}
	for label, x := range to {
		if from[label] == x {
			x.base = x.plus(x.base, family, name, counted)
		}
	}
	return nil
}

// legacyRules are those of a table, in the order in which they were added.
func legacyRules(set map[string]*loaded, family pfconf.Family, name string) []kernelRule {
	var all []*loaded
	for _, x := range set {
		if x.rule.Family == family {
			all = append(all, x)
		}
	}
	slices.SortFunc(all, func(a, b *loaded) int { return a.number - b.number })
	var rules []kernelRule
	for _, x := range all {
		for _, k := range x.beside {
			if k.chain.table.name == name {
				rules = append(rules, k)
			}
		}
	}
	return rules
}

// plus adds what the rules of a table have counted, by their comments.
func (x *loaded) plus(c pfconf.Counters, family pfconf.Family, name string, counted map[string]uint64) pfconf.Counters {
	if x.rule.Family != family {
		return c
	}
	for _, k := range x.beside {
		if k.chain.table.name == name {
			c = k.part.add(c, counted[k.comment()], 0)
		}
	}
	return c
}

func (l *legacy) count(rules map[string]*loaded, read map[string]pfconf.Counters) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, family := range pfconf.Families {
		for _, name := range legacyTables {
			asked := func(label string) bool {
				x := rules[label]
				return x.rule.Family == family && slices.ContainsFunc(x.beside,
					func(k kernelRule) bool { return k.chain.table.name == name })
			}
			var labels []string
			for label := range read {
				if asked(label) {
					labels = append(labels, label)
				}
			}
			if len(labels) == 0 {
				continue
			}
			t, err := l.sockets[family].Table(name)
			if err != nil {
				return err
			}
			counted := t.Packets(xtPrefix)
			for _, label := range labels {
				x := rules[label]
				for _, k := range x.beside {
					if _, there := counted[k.comment()]; k.chain.table.name == name && !there {
						return goneError(label)
					}
				}
				read[label] = x.plus(read[label], family, name, counted)
			}
		}
	}
	for label, c := range read {
		b := rules[label].base
		read[label] = pfconf.Counters{Matched: c.Matched + b.Matched, Done: c.Done + b.Done,
			Replies: c.Replies + b.Replies, Kernel: c.Kernel + b.Kernel}
	}
	return nil
}

// ForeignError says that a table of iptables-legacy has rules of another process.
type ForeignError struct {
	Family pfconf.Family
	Table  string
	Rules  int
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s's table %s has %d rules of another program: they would forget their limits and quotas "+
		"each time that rules are loaded", legacyTool(e.Family), e.Table, e.Rules)
}

// Hint is what to do about it, for a person.
func (e *ForeignError) Hint() string {
	return "use -filter nft or -filter xt, which leave them alone, or save and flush them: " +
		legacyTool(e.Family) + "-save; " + legacyTool(e.Family) + " -t " + e.Table + " -F"
}

func legacyTool(f pfconf.Family) string {
	if f == pfconf.Inet {
		return "iptables-legacy"
	}
	return "ip6tables-legacy"
}

// noLegacy makes a *MissingError of the errors by which a kernel says that it has no such table: no
// socket option, or no table.
func noLegacy(f pfconf.Family, name string, err error) error {
	err = wrap("read "+legacyTool(f)+"'s table "+name, err)
	if errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.ENOENT) {
		return &need.MissingError{Feature: need.XTLegacy, Err: err}
	}
	return err
}

// delLegacy removes this program's chains from a table, if there is one, and reports whether it
// had some. Rules of others stay.
func (h *host) delLegacy(f pfconf.Family, name string) (removed bool, err error) {
	if h.legacy != nil {
		h.legacy.mu.Lock()
		defer h.legacy.mu.Unlock()
		if name == "nat" && !h.legacy.natted[f] {
			return false, nil
		}
		return removeChains(h.legacy.sockets[f], f, name)
	}
	s, err := openLegacy(f, name)
	if err != nil || s == nil {
		return false, err
	}
	defer s.Close()
	return removeChains(s, f, name)
}

// openLegacy opens a socket for a table of iptables-legacy. It is nil when there is no such table:
// asking for one would make it.
func openLegacy(f pfconf.Family, name string) (*xt.Socket, error) {
	file := map[pfconf.Family]string{pfconf.Inet: "ip_tables_names", pfconf.Inet6: "ip6_tables_names"}[f]
	names, err := os.ReadFile("/proc/thread-self/net/" + file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !slices.Contains(strings.Fields(string(names)), name) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return xt.Open(f == pfconf.Inet6)
}

// eachLegacy calls take with each rule of this program's in the tables of iptables-legacy.
func eachLegacy(take func(f pfconf.Family, table string, rule xt.Told)) error {
	for _, f := range pfconf.Families {
		for _, name := range legacyTables {
			s, err := openLegacy(f, name)
			if err != nil {
				return err
			}
			if s == nil {
				continue
			}
			t, err := s.Table(name)
			if err := errors.Join(err, s.Close()); err != nil {
				return wrap("read "+legacyTool(f)+"'s table "+name, err)
			}
			for _, rule := range t.Told(xtPrefix) {
				take(f, name, rule)
			}
		}
	}
	return nil
}

func removeChains(s *xt.Socket, f pfconf.Family, name string) (removed bool, err error) {
	unlock, err := xt.Lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	for range legacyTries {
		var t *xt.Table
		if t, err = s.Table(name); err != nil {
			break
		}
		if removed, _ = t.Remove(xtPrefix); !removed {
			return false, nil
		}
		if err = s.Load(t); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return err == nil, wrap("remove the chains of this program from "+legacyTool(f)+"'s table "+name, err)
}
