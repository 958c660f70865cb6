package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/netlink"
	"pfdivert/pfconf/rtnetlink"
)

// host is what the driver changes on a host apart from single rules: the
// table, the policy route and a sysctl. Each change has its Undo. The sockets
// and the file stay with the network namespace that they were opened in.
type host struct {
	nf    *socket
	route *rtnetlink.Conn
	demux *os.File
	// legacy, if not nil, has sockets for iptables-legacy in the namespace.
	legacy *legacy
}

// earlyDemux must be 0. Else an established flow's packets find their socket
// before routing and go on when rule and state are gone. It governs IPv6 too
// (ip6_rcv_finish_core, net/ipv6/ip6_input.c).
const earlyDemux = "/proc/sys/net/ipv4/ip_early_demux"

func openHost() (*host, error) {
	h := &host{}
	var err error
	if h.nf, err = openSocket(); err != nil {
		if a := refusal(err); a.Support == No {
			err = &need.MissingError{Feature: need.NFTables, Err: err}
		}
		return nil, err
	}
	if h.route, err = rtnetlink.Dial(); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if h.demux, err = os.OpenFile(earlyDemux, os.O_RDWR, 0); err != nil {
		// A container can have it read-only; then it must be right already.
		h.demux, err = os.Open(earlyDemux)
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *host) close() error {
	var err error
	if h.demux != nil {
		err = h.demux.Close()
	}
	if h.route != nil {
		err = errors.Join(err, h.route.Close())
	}
	return errors.Join(err, h.nf.close())
}

// addTable creates the table with its chains and the permanent rules, of which the first needs
// conntrack.
func (h *host) addTable(chains []chain, permanent []kernelRule) error {
	h.nf.mu.Lock()
	defer h.nf.mu.Unlock()
	r := h.nf.transaction()
	table := r.newTable(own, exclusive)
	for _, c := range chains {
		r.newChain(c)
	}
	rule := r.newRule(permanent[0], 0)
	for _, k := range permanent[1:] {
		r.newRule(k, 0)
	}
	rejected, err := h.nf.commit(r, noEcho)
	if err == nil {
		err = r.FirstOf(rejected)
	}
	if rejected[table] == unix.EEXIST {
		return &TakenError{"table inet " + TableName}
	}
	if a := refusal(err); err != nil && a.Support == No {
		feature := need.NFTables
		// The rule looks at a state and counts: which of the two is it that is missing?
		if rejected[rule] != 0 && h.nf.probe([]statement{counter{}})[0].Support == Yes {
			feature = need.Conntrack
		}
		err = &need.MissingError{Feature: feature, Err: err}
	}
	return wrap("create table inet "+TableName, err)
}

func (h *host) delTable() error {
	h.nf.mu.Lock()
	defer h.nf.mu.Unlock()
	r := h.nf.transaction()
	r.delTable(own, 0)
	return wrap("delete table inet "+TableName, absent(h.nf.commitAll(r)))
}

// delStates removes the conntrack entries that rules of ours marked.
func (h *host) delStates() error {
	// A kernel without conntrack marks has none of ours, and would remove all
	// entries (ctnetlink_alloc_filter, net/netfilter/nf_conntrack_netlink.c).
	h.nf.mu.Lock()
	defer h.nf.mu.Unlock()
	switch a := h.nf.probe([]statement{ctMark{}})[0]; a.Support {
	case No:
		return nil
	case Unknown:
		return wrap("find out whether there are conntrack marks", a.Err)
	}
	r := h.nf.request()
	r.Netfilter(ctDelete, unix.NLM_F_ACK, unix.AF_UNSPEC, 0)
	r.Attr32(ctaMark, Mark)
	r.Attr32(ctaMarkMask, ^uint32(0))
	var refused error
	err := h.nf.Exchange(r.Request, func(m netlink.Message) bool {
		if m.Errno != 0 {
			refused = m.Errno
		}
		return false
	})
	var missing *need.MissingError
	if errors.As(noConntrack(refused), &missing) {
		refused = nil // no one here sees or makes entries
	}
	return wrap("remove the diverted flows' conntrack entries", errors.Join(err, refused))
}

// routable reports whether no one else uses the mark and the routing table, and whether lo is up
// where that matters: IPv6 has no local routes while it is down (fib6_nh_init,
// net/ipv6/route.c), IPv4 does.
func (h *host) routable(f pfconf.Family) error {
	if f == pfconf.Inet6 {
		lo, err := h.route.LinkAt(loopback)
		if err != nil {
			return fmt.Errorf("look at interface lo: %w", err)
		}
		if lo.Flags&unix.IFF_UP == 0 {
			return &LoopbackDownError{}
		}
	}
	rules, err := h.route.Rules(afOf(f))
	if err != nil {
		return noPolicyRouting(fmt.Errorf("list the %v policy rules: %w", f, err))
	}
	for _, r := range rules {
		switch {
		case r.Action == rtnetlink.ToTable && r.Table == Table && r.Mark == Mark:
			return &TakenError{fmt.Sprintf("%v policy rule (fwmark 0x%x lookup %d)", f, r.Mark, r.Table)}
		case r.Table == Table || r.Mark == Mark:
			return &ForeignRuleError{f, r}
		}
	}
	routes, err := h.route.Routes(afOf(f), Table)
	if err != nil {
		return fmt.Errorf("list the %v routes of table %d: %w", f, Table, err)
	}
	if len(routes) > 0 {
		return &TakenError{fmt.Sprintf("%v route to %v in table %d", f, routes[0].Dst, Table)}
	}
	return nil
}

// ForeignRuleError says that a policy rule of the host's own has the mark or the routing table that
// the driver would use.
type ForeignRuleError struct {
	Family pfconf.Family
	Rule   rtnetlink.PolicyRule
}

func (e *ForeignRuleError) Error() string {
	return fmt.Sprintf("this host has an %v policy rule of its own for mark 0x%x or table %d, which a run uses: %s",
		e.Family, Mark, Table, strings.ReplaceAll(e.Rule.String(), "\t", " "))
}

// Hint is what to do about it, for a person: ip(8) deletes what is like its own listing.
func (e *ForeignRuleError) Hint() string {
	ip := "ip"
	if e.Family == pfconf.Inet6 {
		ip = "ip -6"
	}
	_, rule, _ := strings.Cut(e.Rule.String(), "\t")
	return fmt.Sprintf("on that host: %s rule del pref %d %s", ip, e.Rule.Priority, rule)
}

// noPolicyRouting makes a *MissingError of the error of a kernel without policy rules of a family.
func noPolicyRouting(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return &need.MissingError{Feature: need.PolicyRouting, Err: err}
	}
	return err
}

func policyRule(f pfconf.Family) rtnetlink.PolicyRule {
	return rtnetlink.PolicyRule{Family: afOf(f), Mark: Mark, Table: Table, Protocol: Protocol}
}

func (h *host) addRule(f pfconf.Family) error {
	return wrap(fmt.Sprintf("add the %v policy rule", f), noPolicyRouting(h.route.AddRule(policyRule(f))))
}

func (h *host) delRule(f pfconf.Family) error {
	return wrap(fmt.Sprintf("delete the %v policy rule", f), absent(h.route.DeleteRule(policyRule(f))))
}

// loopback is lo's number in every namespace (LOOPBACK_IFINDEX, net/flow.h).
const loopback = 1

func localRoute(p netip.Prefix) rtnetlink.Route {
	return rtnetlink.Route{
		Link:     loopback,
		Dst:      p,
		Scope:    unix.RT_SCOPE_HOST,
		Type:     unix.RTN_LOCAL,
		Table:    Table,
		Protocol: Protocol,
	}
}

func (h *host) addRoute(p netip.Prefix) error {
	return wrap(fmt.Sprintf("add the local route to %v in table %d", p, Table), h.route.AddRoute(localRoute(p)))
}

func (h *host) delRoute(p netip.Prefix) error {
	return wrap(fmt.Sprintf("delete the local route to %v in table %d", p, Table),
		absent(h.route.DeleteRoute(localRoute(p))))
}

// addresses are the host's own.
func (h *host) addresses() (map[netip.Addr]bool, error) {
	list, err := h.route.Addresses(unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	own := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		own[a.Prefix.Addr()] = true
	}
	return own, nil
}

func (h *host) demuxValue() (string, error) {
	b := make([]byte, 16)
	n, err := h.demux.ReadAt(b, 0)
	if n == 0 {
		return "", fmt.Errorf("read %s: %w", earlyDemux, err)
	}
	return strings.TrimSpace(string(b[:n])), nil
}

// localnetPath is the setting by which an interface takes packets for 127.0.0.0/8
// (ip_route_input_slow, net/ipv4/route.c). IPv6 has none: the route to ::1 is lo's alone
// (rt6_need_strict, net/ipv6/route.c).
func localnetPath(nic string) string { return "/proc/sys/net/ipv4/conf/" + nic + "/route_localnet" }

// setLocalnet sets it, in the current network namespace. An interface that is gone has none.
func setLocalnet(nic, value string) error {
	err := os.WriteFile(localnetPath(nic), []byte(value+"\n"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (h *host) setDemux(value string) error {
	_, err := h.demux.WriteAt([]byte(value+"\n"), 0)
	return err
}

// absent turns the errors of deleting what is not there into success.
func absent(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) && slices.Contains([]unix.Errno{unix.ENOENT, unix.ESRCH, unix.EAFNOSUPPORT}, errno) {
		return nil
	}
	return err
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: %w (root, or CAP_NET_ADMIN in this network namespace, may)", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func afOf(f pfconf.Family) uint8 {
	if f == pfconf.Inet {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
