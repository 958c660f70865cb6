package nft

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
	"pfdivert/pfconf/xt"
)

// Inspector is a pfconf.Inspector of the current network namespace's nf_tables and conntrack: this
// program's are the table TableName and the entries with the mark Mark.
type Inspector struct {
	host    *host
	entries map[string]entry // by id, as States last listed them
}

var _ pfconf.Inspector = (*Inspector)(nil)

// OpenInspector makes one.
func OpenInspector() (*Inspector, error) {
	h, err := openHost()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &Inspector{host: h}, nil
}

// Close frees what it holds open.
func (d *Inspector) Close() error { return d.host.close() }

// Overview asks for it. nf_tables looks at packets when there is a table.
func (d *Inspector) Overview(ctx context.Context) (o pfconf.Overview, err error) {
	places, err := d.Places(ctx)
	if err != nil {
		return o, err
	}
	rules, err := d.OwnRules(ctx)
	if err != nil {
		return o, err
	}
	o = pfconf.Overview{Filter: "nftables", Enabled: len(places) > 0, Own: len(rules)}
	n, err := sysctl("net.netfilter.nf_conntrack_count")
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // no conntrack, no states
	}
	o.States = int(n)
	return o, err
}

var familyNames = map[uint8]string{
	unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6",
	unix.NFPROTO_ARP: "arp", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev",
}

// Places are the tables of all families.
func (d *Inspector) Places(context.Context) ([]pfconf.Place, error) {
	s := d.host.nf
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var places []pfconf.Place
		r := s.request()
		r.Netfilter(netlink.Nft(unix.NFT_MSG_GETTABLE), unix.NLM_F_DUMP, unix.AF_UNSPEC, 0)
		err := s.Dump(r.Request, func(m netlink.Message) error {
			if m.Kind == netlink.Nft(unix.NFT_MSG_NEWTABLE) {
				family, table := m.Netfilter()
				name := familyNames[family] + " " +
					strings.TrimRight(string(netlink.Attribute(table, unix.NFTA_TABLE_NAME)), "\x00")
				places = append(places, pfconf.Place{Name: name, Own: name == "inet "+TableName})
			}
			return nil
		})
		if !errors.Is(err, netlink.ErrInterrupted) {
			return places, wrap("list the tables", err)
		}
	}
}

// OwnRules are the kernel's rules of this program: one of pfconf's becomes one or several.
func (d *Inspector) OwnRules(context.Context) ([]pfconf.LoadedRule, error) {
	var rules []pfconf.LoadedRule
	err := d.eachRule(func(label, chain string, rule []byte) {
		rules = append(rules, pfconf.LoadedRule{Label: label, Packets: partBoth.count(pfconf.Counters{}, rule).Matched,
			Place: "chain " + chain, Expressions: slices.Clone(netlink.Attribute(rule, unix.NFTA_RULE_EXPRESSIONS))})
	})
	if err != nil {
		return nil, err
	}
	err = eachLegacy(func(f pfconf.Family, table string, rule xt.Told) {
		rules = append(rules, pfconf.LoadedRule{Label: labelOf(rule.Comment), Packets: rule.Packets, Entry: rule.Entry,
			IPv6: f == pfconf.Inet6, Place: fmt.Sprintf("chain %s of %s -t %s", rule.Chain, legacyTool(f), table)})
	})
	return rules, err
}

// labelOf is the label in a kernel rule's comment.
func labelOf(comment string) string {
	label, _, _ := strings.Cut(comment, " ")
	return label
}

// eachRule calls take with each of pfconf's rules: its label, its chain and its attributes.
func (d *Inspector) eachRule(take func(label, chain string, rule []byte)) error {
	s := d.host.nf
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.dumpRules(true, func(m netlink.Message) {
		label := labelOf(commentOf(m))
		if k, err := keyOf(m); err == nil && (k.table == own || inOwnChain(m)) && label != "" {
			take(label, zeroed(m, unix.NFTA_RULE_CHAIN), attributesOf(m))
		}
	})
	return wrap("list the rules", err)
}

// States lists the conntrack table. Near is the end whose address is the host's own or
// which an entry with this program's mark is for.
func (d *Inspector) States(context.Context) ([]pfconf.State, error) {
	own, err := d.host.addresses()
	if err != nil {
		return nil, err
	}
	s := d.host.nf
	s.mu.Lock()
	entries, err := s.dumpEntries()
	s.mu.Unlock()
	if err != nil {
		return nil, wrap("list the conntrack table", noConntrack(err))
	}
	d.entries = map[string]entry{}
	states := make([]pfconf.State, len(entries))
	for i, e := range entries {
		states[i] = e.state(own[e.orig.src.Addr()] && !own[e.orig.dst.Addr()])
		states[i].ID = hex.EncodeToString(e.id)
		d.entries[states[i].ID] = e
	}
	return states, nil
}

// Kill removes entries that States listed.
func (d *Inspector) Kill(_ context.Context, states []pfconf.State) (int, error) {
	var tuples []tuple
	var ids [][]byte
	for _, s := range states {
		e, ok := d.entries[s.ID]
		if !ok {
			return 0, fmt.Errorf("no entry with the id %q was listed", s.ID)
		}
		tuples, ids = append(tuples, e.orig), append(ids, e.id)
	}
	n, err := d.host.nf.kill(tuples, ids)
	return n, wrap("remove conntrack entries", err)
}

// KillLabel removes the entries with this program's mark, and those of the flows that its rules
// are about: divert-packet rules mark none. conntrack knows no labels, so those of one can't be
// told from the others.
func (d *Inspector) KillLabel(ctx context.Context, label string) (int, error) {
	if label != "" {
		return 0, errors.New("conntrack does not know by which rule an entry was marked")
	}
	var flows []flow
	err := d.eachRule(func(_, _ string, rule []byte) {
		if f := flowOf(rule); f.src.IsValid() {
			flows = append(flows, f)
		}
	})
	if err != nil {
		return 0, err
	}
	err = eachLegacy(func(f pfconf.Family, _ string, rule xt.Told) {
		if proto, from, to, fromPort, port := rule.Flow(f == pfconf.Inet6); fromPort == 0 {
			flows = append(flows, flow{uint8(proto), from, to, port})
		}
	})
	if err != nil {
		return 0, err
	}
	states, err := d.States(ctx)
	if err != nil {
		return 0, err
	}
	states = slices.DeleteFunc(states, func(s pfconf.State) bool {
		orig := d.entries[s.ID].orig
		return s.Mark != Mark && !slices.ContainsFunc(flows, func(f flow) bool { return f.has(orig) })
	})
	return d.Kill(ctx, states)
}

// flow is what a rule of this program matches.
type flow struct {
	number   uint8 // of the protocol
	src, dst netip.Addr
	port     uint16 // of dst; 0: any
}

func (f flow) has(t tuple) bool {
	return t.number == f.number && t.src.Addr() == f.src && t.dst.Addr() == f.dst &&
		(f.port == 0 || t.dst.Port() == f.port)
}

// flowOf reads a rule's flow from its expressions, as match has written them. It is not valid for
// the rules about answers, whose flow another rule of the label is about.
func flowOf(rule []byte) (f flow) {
	var base, offset uint32
	protocol := false
	for _, e := range netlink.Attributes(netlink.Attribute(rule, unix.NFTA_RULE_EXPRESSIONS)) {
		about := netlink.Attribute(e, unix.NFTA_EXPR_DATA)
		number := func(kind uint16) uint32 {
			if b := netlink.Attribute(about, kind); len(b) == 4 {
				return binary.BigEndian.Uint32(b)
			}
			return 0
		}
		switch string(netlink.Attribute(e, unix.NFTA_EXPR_NAME)) {
		case "payload\x00":
			base, offset = number(unix.NFTA_PAYLOAD_BASE), number(unix.NFTA_PAYLOAD_OFFSET)
			continue
		case "meta\x00":
			protocol = number(unix.NFTA_META_KEY) == unix.NFT_META_L4PROTO
			continue
		case "match\x00":
			name := strings.TrimRight(string(netlink.Attribute(about, unix.NFTA_MATCH_NAME)), "\x00")
			from, to, ok := xt.PortsOf(name, netlink.Attribute(about, unix.NFTA_MATCH_INFO))
			switch {
			case from != 0:
				return flow{}
			case ok:
				f.port = to
			}
		case "cmp\x00":
			value := netlink.Attribute(netlink.Attribute(about, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
			addr, isAddr := netip.AddrFromSlice(value)
			switch {
			case protocol && len(value) == 1:
				f.number = value[0]
			case base == unix.NFT_PAYLOAD_NETWORK_HEADER && isAddr && (offset == 12 || offset == 8):
				f.src = addr
			case base == unix.NFT_PAYLOAD_NETWORK_HEADER && isAddr:
				f.dst = addr
			case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 2 && len(value) == 2:
				f.port = binary.BigEndian.Uint16(value)
			case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER:
				return flow{}
			}
		}
		base, protocol = 0, false
	}
	return f
}

// Flush removes the table, this program's chains from those of iptables, the policy rules and
// routes, and the marked conntrack entries.
func (d *Inspector) Flush(ctx context.Context) ([]string, error) {
	places, err := d.Places(ctx)
	if err != nil {
		return nil, err
	}
	var done []string
	for _, p := range places {
		if p.Own {
			if err := d.host.delTable(); err != nil {
				return done, err
			}
			done = append(done, "table "+p.Name)
		}
	}
	removed, err := d.flushXT()
	done = append(done, removed...)
	if err != nil {
		return done, err
	}
	for _, f := range pfconf.Families {
		removed, err := d.flushRoutes(f)
		done = append(done, removed...)
		if err != nil {
			return done, err
		}
	}
	killed, err := d.KillLabel(ctx, "")
	if killed > 0 {
		done = append(done, pfconf.Count(killed, "state"))
	}
	return done, err
}

// flushXT removes this program's chains from the tables of iptables, both kinds. The tables
// themselves and the chains of their hooks stay: who made them is in a journal, which is undone
// before.
func (d *Inspector) flushXT() (done []string, err error) {
	for _, f := range pfconf.Families {
		for _, hooks := range xtTables(f) {
			t := hooks[0].hook.table
			there, err := d.host.chainsOf(t)
			if err != nil {
				return done, err
			}
			if slices.ContainsFunc(there, func(name string) bool { return strings.HasPrefix(name, xtPrefix) }) {
				if err := d.host.delXT(t, nil); err != nil {
					return done, err
				}
				done = append(done, fmt.Sprintf("chains %s* of table %v", xtPrefix, t))
			}
			removed, err := d.host.delLegacy(f, t.name)
			if err != nil {
				return done, err
			}
			if removed {
				done = append(done, fmt.Sprintf("chains %s* of %s's table %s", xtPrefix, legacyTool(f), t.name))
			}
		}
	}
	return done, nil
}

// flushRoutes removes this program's policy rule and routes of a family.
func (d *Inspector) flushRoutes(f pfconf.Family) (done []string, err error) {
	route := d.host.route
	rules, err := route.Rules(afOf(f))
	if err != nil {
		return nil, fmt.Errorf("list the %v policy rules: %w", f, err)
	}
	for _, r := range rules {
		if r.Mark == Mark && r.Table == Table {
			if err := d.host.delRule(f); err != nil {
				return done, err
			}
			done = append(done, fmt.Sprintf("%v policy rule to table %d", f, Table))
		}
	}
	routes, err := route.Routes(afOf(f), Table)
	if err != nil {
		return done, fmt.Errorf("list the %v routes of table %d: %w", f, Table, err)
	}
	for _, r := range routes {
		if err := route.DeleteRoute(r); err != nil {
			return done, wrap(fmt.Sprintf("delete the route to %v in table %d", r.Dst, Table), absent(err))
		}
		done = append(done, fmt.Sprintf("route to %v in table %d", r.Dst, Table))
	}
	return done, nil
}

// Timeouts are conntrack's, and that of fragments.
func (d *Inspector) Timeouts(context.Context) ([]pfconf.Setting, error) {
	return settings(timeoutNames)
}

// Limits are conntrack's.
func (d *Inspector) Limits(context.Context) ([]pfconf.Setting, error) { return settings(limitNames) }

func settings(names [][2]string) ([]pfconf.Setting, error) {
	var all []pfconf.Setting
	for _, n := range names {
		value, err := sysctl(n[1])
		if errors.Is(err, fs.ErrNotExist) {
			continue // this kernel does not have it
		}
		if err != nil {
			return nil, err
		}
		all = append(all, pfconf.Setting{Name: n[0], Value: value, System: n[1]})
	}
	return all, nil
}

// sysctl reads a number of the current network namespace.
func sysctl(name string) (int64, error) {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("sysctl %s: %w", name, err)
	}
	return n, nil
}
