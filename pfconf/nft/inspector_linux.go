package nft

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
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
	s := d.host.nf
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.dumpRules(true, func(m netlink.Message) {
		label, what, _ := strings.Cut(commentOf(m), " ")
		if k, err := keyOf(m); err != nil || k.table != own && !inOwnChain(m) || label == "" {
			return // not for one of pfconf's
		}
		rule := pfconf.LoadedRule{Label: label, Packets: partBoth.count(pfconf.Counters{}, attributesOf(m)).Matched,
			Text: what}
		rule.Place = "chain " + strings.TrimRight(string(netlink.Attribute(attributesOf(m), unix.NFTA_RULE_CHAIN)),
			"\x00")
		rules = append(rules, rule)
	})
	return rules, wrap("list the rules", err)
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

// KillLabel removes the entries with this program's mark. conntrack knows no labels, so
// those of one can't be told from the others.
func (d *Inspector) KillLabel(ctx context.Context, label string) (int, error) {
	if label != "" {
		return 0, errors.New("conntrack does not know by which rule an entry was marked")
	}
	states, err := d.States(ctx)
	if err != nil {
		return 0, err
	}
	var own []pfconf.State
	for _, s := range states {
		if s.Mark == Mark {
			own = append(own, s)
		}
	}
	return d.Kill(ctx, own)
}

// Flush removes the table, the policy rules and routes, and the marked conntrack entries.
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
	for _, f := range pfconf.Families {
		removed, err := d.flushRoutes(f)
		done = append(done, removed...)
		if err != nil {
			return done, err
		}
	}
	killed, err := d.KillLabel(ctx, "")
	if killed > 0 {
		done = append(done, fmt.Sprintf("%d states", killed))
	}
	return done, err
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
