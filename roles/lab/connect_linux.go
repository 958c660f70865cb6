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

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/rtnetlink"
)

// Fixed hardware addresses, locally administered, let each host know the
// other's without asking.
var hardware = map[HostName]net.HardwareAddr{
	Local:  {0x02, 0, 0, 0xbc, 1, 1},
	Remote: {0x02, 0, 0, 0xbc, 1, 2},
}

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
	for i, h := range []HostName{Local, Remote} {
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
	host     HostName
	families []pfconf.Family
	config   Config
	routes   *rtnetlink.Conn
	link, lo int // indexes
}

// open prepares the host, on a thread in its namespace. LOCAL, which comes
// first, also creates the cable and puts its other end into remote.
func (s *hostSetup) open(remote *os.File) (err error) {
	if err := s.sysctls(); err != nil {
		return err
	}
	if s.routes, err = rtnetlink.Dial(); err != nil {
		return err
	}
	lo, err := s.routes.Link("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := s.routes.SetUp(lo.Index); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	s.lo = lo.Index
	var link rtnetlink.Link
	if s.host == Local {
		// By default a veth has a queue for every CPU.
		link, err = s.routes.AddLink(rtnetlink.NewLink{
			Name: LocalInterface, Kind: rtnetlink.Veth, Hardware: hardware[Local], Queues: 1,
			Peer: &rtnetlink.NewLink{Name: RemoteInterface, Hardware: hardware[Remote], Queues: 1,
				Namespace: int(remote.Fd())},
		})
		if errors.Is(err, unix.EOPNOTSUPP) {
			return &need.MissingError{Feature: need.Veth, Err: fmt.Errorf("create veth pair: %w", err)}
		}
		if err != nil {
			return fmt.Errorf("create veth pair: %w", err)
		}
	} else if link, err = s.routes.Link(RemoteInterface); err != nil {
		return fmt.Errorf("find %s: %w", RemoteInterface, err)
	}
	s.link = link.Index
	return nil
}

func (s *hostSetup) close() {
	if s.routes != nil {
		_ = s.routes.Close()
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
		if err := s.routes.SetNoLinkLocal(s.link); err != nil {
			return fmt.Errorf("set IPv6 address generation of %s: %w", s.host.Interface(), err)
		}
	}
	if err := s.routes.SetUp(s.link); err != nil {
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
func (s *hostSetup) address(p AddressPlan) error {
	own, other, otherHost := p.Local, p.Remote, Remote
	if s.host == Remote {
		own, other, otherHost = p.Remote, p.Local, Local
	}
	addr := rtnetlink.Address{Link: s.link, Prefix: own}
	if own.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := s.routes.AddAddress(addr); err != nil {
		return fmt.Errorf("add address %v: %w", own, err)
	}
	// Permanent, so that no packet waits for ARP or neighbour discovery and
	// none of theirs is counted or heard by a raw socket.
	err := s.routes.SetNeighbour(rtnetlink.Neighbour{
		Link: s.link, State: unix.NUD_PERMANENT, Addr: other.Addr(), Hardware: hardware[otherHost],
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
	via := func(to netip.Prefix) rtnetlink.Route {
		return rtnetlink.Route{Link: s.link, Dst: to, Via: other.Addr(), QuickACK: atOnce}
	}
	var routes []rtnetlink.Route
	if s.host == Remote {
		routes = append(routes, rtnetlink.Route{Link: s.link, Dst: single(other), Scope: unix.RT_SCOPE_LINK,
			QuickACK: atOnce})
	}
	if s.host == Local {
		routes = append(routes, via(p.Fakes))
	}
	if p.Locals.IsValid() && s.host == Local {
		routes = append(routes, rtnetlink.Route{
			Link: s.lo, Dst: p.Locals, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST,
		})
	} else if p.Locals.IsValid() {
		routes = append(routes, via(p.Locals))
	}
	for _, r := range routes {
		if err := s.routes.AddRoute(r); err != nil {
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
	link, err := s.routes.LinkAt(s.link)
	if err != nil {
		return "", err
	}
	if link.State != rtnetlink.OperUp {
		return fmt.Sprintf("%s has no carrier", s.host.Interface()), nil
	}
	if !slices.Contains(s.families, pfconf.Inet6) {
		return "", nil
	}
	own := s.config.PlanOf(pfconf.Inet6).Local.Addr()
	if s.host == Remote {
		own = s.config.PlanOf(pfconf.Inet6).Remote.Addr()
	}
	routes, err := s.routes.Routes(unix.AF_INET6, unix.RT_TABLE_LOCAL)
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(routes, func(r rtnetlink.Route) bool {
		return r.Type == unix.RTN_LOCAL &&
			r.Dst.Addr() == own
	}) {
		return "", nil
	}
	return fmt.Sprintf("no local route to %v", own), nil
}

// single is the prefix's address alone.
func single(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(p.Addr(), p.Addr().BitLen()) }
