package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
)

// host is what the driver changes on a host apart from single rules: the
// table, the policy route and a sysctl. Each change has its Undo. The sockets
// and the file stay with the network namespace that they were opened in.
type host struct {
	nf    *socket
	route *netlink.Handle
	demux *os.File
}

// earlyDemux must be 0. Else an established flow's packets find their socket
// before routing and go on when rule and state are gone. It governs IPv6 too
// (ip6_rcv_finish_core, net/ipv6/ip6_input.c).
const earlyDemux = "/proc/sys/net/ipv4/ip_early_demux"

func openHost() (*host, error) {
	h := &host{}
	var err error
	if h.nf, err = openSocket(); err != nil {
		if a := refusal(err); a.Outcome == No {
			err = &MissingError{Feature: NFTables, Err: err}
		}
		return nil, err
	}
	if h.route, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(fmt.Errorf("open a route socket: %w", err), h.close())
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
		h.route.Close()
	}
	return errors.Join(err, h.nf.close())
}

// addTable creates the table with its chains and the permanent rule.
func (h *host) addTable() error {
	h.nf.mu.Lock()
	defer h.nf.mu.Unlock()
	r := h.nf.transaction()
	table := r.newTable(TableName, exclusive)
	for _, c := range chains {
		r.newChain(TableName, c)
	}
	rule := r.newRule(TableName, permanent, 0)
	rejected, err := h.nf.commit(r, noEcho)
	if err == nil {
		err = firstOf(r, rejected)
	}
	if rejected[table] == unix.EEXIST {
		return &TakenError{"table inet " + TableName}
	}
	if a := refusal(err); err != nil && a.Outcome == No {
		feature := NFTables
		// The rule looks at a state and counts: which of the two is it that is missing?
		if rejected[rule] != 0 && h.nf.probe([]statement{counter{}})[0].Outcome == Yes {
			feature = Tracking
		}
		err = &MissingError{Feature: feature, Err: err}
	}
	return wrap("create table inet "+TableName, err)
}

func (h *host) delTable() error {
	h.nf.mu.Lock()
	defer h.nf.mu.Unlock()
	r := h.nf.transaction()
	r.delTable(TableName)
	return wrap("delete table inet "+TableName, absent(h.nf.commitAll(r)))
}

// delStates removes the conntrack entries that rules of ours marked.
func (h *host) delStates() error {
	// A kernel without conntrack marks has none of ours, and would remove all
	// entries (ctnetlink_alloc_filter, net/netfilter/nf_conntrack_netlink.c).
	h.nf.mu.Lock()
	defer h.nf.mu.Unlock()
	switch a := h.nf.probe([]statement{ctMark{}})[0]; a.Outcome {
	case No:
		return nil
	case Unknown:
		return wrap("find out whether there are conntrack marks", a.Err)
	}
	r := h.nf.request()
	r.add(ctDelete, unix.NLM_F_ACK, unix.AF_UNSPEC, 0)
	r.attr32(nl.CTA_MARK, Mark)
	r.attr32(ctaMarkMask, ^uint32(0))
	r.finish()
	var refused error
	err := h.nf.exchange(r, func(m message) bool {
		if m.errno != 0 {
			refused = m.errno
		}
		return false
	})
	var missing *MissingError
	if errors.As(noConntrack(refused), &missing) {
		refused = nil // no one here sees or makes entries
	}
	return wrap("remove the diverted flows' conntrack entries", errors.Join(err, refused))
}

// free reports whether no one else uses the mark and the routing table.
func (h *host) free(f pfconf.Family) error {
	rules, err := h.route.RuleList(afOf(f))
	if err != nil {
		return noPolicyRouting(fmt.Errorf("list the %v policy rules: %w", f, err))
	}
	for _, r := range rules {
		if r.Table == Table || r.Mark == Mark {
			return &TakenError{fmt.Sprintf("%v policy rule (fwmark 0x%x lookup %d)", f, r.Mark, r.Table)}
		}
	}
	routes, err := h.route.RouteListFiltered(afOf(f), &netlink.Route{Table: Table}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list the %v routes of table %d: %w", f, Table, err)
	}
	if len(routes) > 0 {
		return &TakenError{fmt.Sprintf("%v route to %v in table %d", f, routes[0].Dst, Table)}
	}
	return nil
}

// noPolicyRouting makes a *MissingError of the error of a kernel without policy rules of a family.
func noPolicyRouting(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return &MissingError{Feature: need.PolicyRouting, Err: err}
	}
	return err
}

func policyRule(f pfconf.Family) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Mark, r.Table, r.Protocol = afOf(f), Mark, Table, Protocol
	return r
}

func (h *host) addRule(f pfconf.Family) error {
	return wrap(fmt.Sprintf("add the %v policy rule", f), noPolicyRouting(h.route.RuleAdd(policyRule(f))))
}

func (h *host) delRule(f pfconf.Family) error {
	return wrap(fmt.Sprintf("delete the %v policy rule", f), absent(h.route.RuleDel(policyRule(f))))
}

func localRoute(p netip.Prefix) *netlink.Route {
	return &netlink.Route{
		LinkIndex: 1, // lo has this number in every namespace (LOOPBACK_IFINDEX, net/flow.h)
		Dst:       &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Scope:     netlink.SCOPE_HOST,
		Type:      unix.RTN_LOCAL,
		Table:     Table,
		Protocol:  Protocol,
	}
}

func (h *host) addRoute(p netip.Prefix) error {
	return wrap(fmt.Sprintf("add the local route to %v in table %d", p, Table), h.route.RouteAdd(localRoute(p)))
}

func (h *host) delRoute(p netip.Prefix) error {
	return wrap(fmt.Sprintf("delete the local route to %v in table %d", p, Table), absent(h.route.RouteDel(localRoute(p))))
}

// addresses are the host's own.
func (h *host) addresses() (map[netip.Addr]bool, error) {
	list, err := h.route.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	own := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			own[ip.Unmap()] = true
		}
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

func afOf(f pfconf.Family) int {
	if f == pfconf.Inet {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
