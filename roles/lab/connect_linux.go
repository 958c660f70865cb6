package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Fixed hardware addresses, locally administered, let each host know the
// other's without asking.
var hardware = map[Host]net.HardwareAddr{
	Local:  {0x02, 0, 0, 0xbc, 1, 1},
	Remote: {0x02, 0, 0, 0xbc, 1, 2},
}

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h: no link-local
// address is made.
const addrGenModeNone = 1

// connect lays the cable and sets up both hosts.
func (l *Lab) connect(ctx context.Context) error {
	var remote *os.File
	err := l.In(Remote, func() (err error) {
		remote, err = openNamespace()
		return err
	})
	if err != nil {
		return fmt.Errorf("REMOTE's namespace: %w", err)
	}
	defer remote.Close()
	var hosts [2]*hostSetup
	for i, h := range []Host{Local, Remote} {
		hosts[i] = &hostSetup{host: h, families: l.Families, config: l.Config}
		err := l.In(h, func() error { return hosts[i].open(remote) })
		defer hosts[i].close()
		if err != nil {
			return fmt.Errorf("set up %s: %w", strings.ToUpper(string(h)), err)
		}
	}
	for _, s := range hosts {
		if err := s.configure(); err != nil {
			return fmt.Errorf("set up %s: %w", strings.ToUpper(string(s.host)), err)
		}
	}
	return settle(ctx, hosts[:])
}

// hostSetup sets up one host.
type hostSetup struct {
	host     Host
	families []pfconf.Family
	config   Config
	netlink  *netlink.Handle
	link     netlink.Link
	lo       netlink.Link
}

// open prepares the host, on a thread in its namespace. LOCAL, which comes
// first, also creates the cable and puts its other end into remote.
func (s *hostSetup) open(remote *os.File) (err error) {
	if err := s.sysctls(); err != nil {
		return err
	}
	if s.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if s.lo, err = s.netlink.LinkByName("lo"); err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := s.netlink.LinkSetUp(s.lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	if s.host == Local {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = LocalInterface, hardware[Local]
		// By default a veth has a queue for every CPU.
		attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
		s.link = &netlink.Veth{
			LinkAttrs: attrs,
			PeerName:  RemoteInterface, PeerHardwareAddr: hardware[Remote],
			PeerNumTxQueues: 1, PeerNumRxQueues: 1,
			PeerNamespace: netlink.NsFd(remote.Fd()),
		}
		if err := s.netlink.LinkAdd(s.link); errors.Is(err, unix.EOPNOTSUPP) {
			return &need.MissingError{Feature: need.Veth, Err: fmt.Errorf("create veth pair: %w", err)}
		} else if err != nil {
			return fmt.Errorf("create veth pair: %w", err)
		}
		return nil
	}
	if s.link, err = s.netlink.LinkByName(RemoteInterface); err != nil {
		return fmt.Errorf("find %s: %w", RemoteInterface, err)
	}
	return nil
}

func (s *hostSetup) close() {
	if s.netlink != nil {
		s.netlink.Close()
	}
}

// sysctls returns the host the settings that the tests rely on. A new namespace
// takes many from the first one (net.core.devconf_inherit_init_net), so what
// the machine was set to must not matter.
func (s *hostSetup) sysctls() error {
	// A machine that routes would answer for foreign addresses by ICMP errors.
	settings := [][2]string{{"net/ipv4/ip_forward", "0"}}
	// A delayed acknowledgement that another CPU sends at the moment of the FIN
	// may be overtaken by it. TIME_WAIT answers it as out of order, the peer, which
	// has closed, answers that with a reset, and the socket that a cell looks for is gone:
	// the assassination of RFC 1337, once in some 10,000 connections on a busy machine.
	settings = append(settings, [2]string{"net/ipv4/tcp_rfc1337", "1"})
	if slices.Contains(s.families, pfconf.Inet6) {
		settings = append(settings, [][2]string{
			{"net/ipv6/conf/all/disable_ipv6", "0"},
			{"net/ipv6/conf/default/disable_ipv6", "0"},
		}...)
		if s.host == Local {
			// A route makes a prefix of IPv4 addresses bindable; for IPv6 the
			// kernel looks at the interfaces' addresses, unless told not to.
			settings = append(settings, [2]string{"net/ipv6/ip_nonlocal_bind", "1"})
		}
	}
	for _, set := range settings {
		if err := setSysctl(set[0], set[1]); err != nil {
			return err
		}
	}
	return nil
}

// setSysctl sets a sysctl of the calling thread's namespace if it differs.
func setSysctl(name, value string) error {
	path := "/proc/sys/" + name
	was, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(was)) == value {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// configure brings the host's interface up and gives it addresses, neighbours
// and routes.
func (s *hostSetup) configure() error {
	if slices.Contains(s.families, pfconf.Inet6) {
		// No link-local address: it would be tentative for a second or two, and
		// no one needs it.
		if err := s.netlink.LinkSetIP6AddrGenMode(s.link, addrGenModeNone); err != nil {
			return fmt.Errorf("set IPv6 address generation of %s: %w", s.host.Interface(), err)
		}
	}
	if err := s.netlink.LinkSetUp(s.link); err != nil {
		return fmt.Errorf("bring %s up: %w", s.host.Interface(), err)
	}
	for _, f := range s.families {
		if err := s.address(s.config.PlanOf(f)); err != nil {
			return err
		}
	}
	return nil
}

// address sets up one family.
func (s *hostSetup) address(p Plan) error {
	own, other, otherHost := p.Local, p.Remote, Remote
	if s.host == Remote {
		own, other, otherHost = p.Remote, p.Local, Local
	}
	addr := &netlink.Addr{IPNet: ipnet(own)}
	if own.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := s.netlink.AddrAdd(s.link, addr); err != nil {
		return fmt.Errorf("add address %v: %w", own, err)
	}
	// Permanent, so that no packet waits for ARP or neighbour discovery and
	// none of theirs is counted or heard by a raw socket.
	err := s.netlink.NeighSet(&netlink.Neigh{
		LinkIndex: s.link.Attrs().Index, State: unix.NUD_PERMANENT,
		IP: other.Addr().AsSlice(), HardwareAddr: hardware[otherHost],
	})
	if err != nil {
		return fmt.Errorf("add neighbour %v: %w", other.Addr(), err)
	}
	// A TCP socket acknowledges the end of a stream up to 40 ms later (tcp_fin() in
	// net/ipv4/tcp_input.c), by a timer on any CPU. The socket's own end can
	// overtake that: TIME_WAIT answers the late packet, no one is there for the answer
	// any more, and the reset ends conntrack's entry and TIME_WAIT. On these routes
	// it is acknowledged at once.
	const atOnce = 1
	via := func(to netip.Prefix) *netlink.Route {
		return &netlink.Route{LinkIndex: s.link.Attrs().Index, Dst: ipnet(to), Gw: other.Addr().AsSlice(), QuickACK: atOnce}
	}
	var routes []*netlink.Route
	if s.host == Remote {
		routes = append(routes, &netlink.Route{
			LinkIndex: s.link.Attrs().Index, Dst: ipnet(single(other)), Scope: netlink.SCOPE_LINK, QuickACK: atOnce,
		})
	}
	if s.host == Local {
		routes = append(routes, via(p.Fakes))
	}
	if p.Locals.IsValid() && s.host == Local {
		routes = append(routes, &netlink.Route{
			LinkIndex: s.lo.Attrs().Index, Dst: ipnet(p.Locals),
			Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
		})
	} else if p.Locals.IsValid() {
		routes = append(routes, via(p.Locals))
	}
	for _, r := range routes {
		if err := s.netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("add route to %v: %w", r.Dst, err)
		}
	}
	return nil
}

// settleTime bounds the wait for things that take well under a millisecond.
const settleTime = 5 * time.Second

// settle waits until the first packet would arrive. Two things become true in
// kernel work queues, after the request that caused them was answered: the
// carrier of a veth (linkwatch; until then its packets vanish) and the local
// route of an IPv6 address (until then it can be bound but nothing is delivered).
func settle(ctx context.Context, hosts []*hostSetup) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for _, s := range hosts {
		for {
			missing, err := s.missing()
			if err != nil {
				return fmt.Errorf("wait for %s: %w", strings.ToUpper(string(s.host)), err)
			}
			if missing == "" {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for %s: %s: %w", strings.ToUpper(string(s.host)), missing, ctx.Err())
			case <-time.After(100 * time.Microsecond):
			}
		}
	}
	return nil
}

// missing names what the host is still waiting for; "" when nothing.
func (s *hostSetup) missing() (string, error) {
	link, err := s.netlink.LinkByIndex(s.link.Attrs().Index)
	if err != nil {
		return "", err
	}
	if state := link.Attrs().OperState; state != netlink.OperUp {
		return fmt.Sprintf("%s is %v", s.host.Interface(), state), nil
	}
	if !slices.Contains(s.families, pfconf.Inet6) {
		return "", nil
	}
	own := s.config.PlanOf(pfconf.Inet6).Local.Addr()
	if s.host == Remote {
		own = s.config.PlanOf(pfconf.Inet6).Remote.Addr()
	}
	routes, err := s.netlink.RouteListFiltered(unix.AF_INET6,
		&netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return "", err
	}
	for _, r := range routes {
		if r.Dst != nil && r.Dst.IP.Equal(own.AsSlice()) {
			return "", nil
		}
	}
	return fmt.Sprintf("no local route to %v", own), nil
}

// single is the prefix's address alone.
func single(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(p.Addr(), p.Addr().BitLen()) }

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
