package twin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The gateways of Outside. They are addresses of no host: neighbor entries lead to the twin's
// devices.
var (
	gateway4 = netip.MustParseAddr("169.254.77.1")
	gateway6 = netip.MustParseAddr("fe80::7777")
)

// outer is a device of Outside: the other end of the twin's device of the same index.
type outer struct {
	index int
	mac   []byte
	inner Link // the twin's device
	at    Link // the device that has the addresses: inner, or its bridge
}

// surround prepares Outside: each packet that comes in by any device is its own, and each socket
// that is bound to a device sends by it. The devices are switched on where the host's have a
// carrier.
func (t *Twin) surround(ctx context.Context) error {
	if err := t.Outside.Do(func() error { return write(outsideSettings) }); err != nil {
		return fmt.Errorf("settings outside of the twin: %w", err)
	}
	// Answers of ICMP that are too many are left out, and a refused flow would look like a lost
	// one.
	if err := t.Inside.Do(func() error { return write(insideSettings) }); err != nil {
		return fmt.Errorf("limits of ICMP in the twin: %w", err)
	}
	c, err := t.Outside.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	links, err := dump(ctx, c, unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return fmt.Errorf("list devices outside of the twin: %w", err)
	}
	byIndex := map[int]Link{}
	for _, l := range t.Config.Links {
		byIndex[l.Index] = l
	}
	for _, m := range links {
		if len(m.Data) < unix.SizeofIfInfomsg {
			return errAttr
		}
		index := int(int32(host32(m.Data[4:8])))
		all, err := split(m.Data, unix.SizeofIfInfomsg)
		if err != nil {
			return err
		}
		inner, ok := byIndex[index]
		if index == 1 || !ok || text(all.get(unix.IFLA_IFNAME)) != inner.Name {
			continue
		}
		t.outers = append(t.outers, outer{index: index, mac: all.get(unix.IFLA_ADDRESS), inner: inner,
			at: t.Config.holder(inner)})
	}
	requests := append(t.cards(), linkUp(1))
	for _, six := range t.families() {
		for _, o := range t.outers {
			if !o.inner.Up() || !o.inner.Carrier {
				continue
			}
			if !six {
				requests = append(requests, linkUp(o.index))
			}
			gateway := gateway4
			if six {
				gateway = gateway6
			}
			if o.at.ethernet() {
				requests = append(requests, neighbor(o.index, gateway, o.at.address()))
			}
			requests = append(requests, defaultRoute(o.index, gateway))
		}
		requests = append(requests, localDefault(six)) // the last, as it makes the gateway one's own
	}
	failed, err := performAll(ctx, c, requests)
	for i, e := range failed {
		err = errors.Join(err, fmt.Errorf("request %d of type %d: %w", i, requests[i].kind, e))
	}
	if err != nil {
		return fmt.Errorf("prepare what surrounds the twin: %w", err)
	}
	var outer, inner, bridges []string
	for _, o := range t.outers {
		outer = append(outer, o.inner.Name)
	}
	for _, l := range t.Config.Links {
		switch {
		case l.Loopback || !l.Up():
		case l.Kind == "bridge":
			bridges = append(bridges, l.Name)
		default:
			inner = append(inner, l.Name)
		}
	}
	return errors.Join(
		t.Outside.Do(func() error { return ready(outer) }),
		t.Inside.Do(func() error { return ready(append(inner, bridges...)) }))
}

// cards gives devices of Outside the hardware addresses that rules ask for, of one port of each
// bridge.
func (t *Twin) cards() []request {
	var all []request
	given := map[int]bool{}
	for i, o := range t.outers {
		mac := t.hints.sender(o.at.Name)
		if mac == "" || given[o.at.Index] || !o.at.ethernet() || !o.inner.Carrier {
			continue
		}
		given[o.at.Index] = true
		t.outers[i].mac = []byte(mac)
		b := make([]byte, unix.SizeofIfInfomsg)
		copy(b[4:], native(uint32(o.index)))
		all = append(all, request{kind: unix.RTM_NEWLINK, data: appendAttr(b, unix.IFLA_ADDRESS, []byte(mac))})
	}
	return all
}

// families are the families that this kernel has: false is IPv4.
func (t *Twin) families() []bool {
	if hasIPv6() {
		return []bool{false, true}
	}
	return []bool{false}
}

type setting struct{ path, value string }

var outsideSettings = []setting{
	{"ipv4/conf/all/accept_local", "1"}, // both ends of a flow are here
	{"ipv4/conf/all/rp_filter", "0"},
	{"ipv4/conf/default/rp_filter", "0"},
	{"ipv4/icmp_ratelimit", "0"},
	{"ipv6/icmp/ratelimit", "0"},
	{"ipv6/conf/all/accept_ra", "0"},
	{"ipv6/conf/default/accept_ra", "0"},
	{"ipv6/conf/all/accept_dad", "0"},
	{"ipv6/conf/default/accept_dad", "0"},
	{"ipv6/conf/default/router_solicitations", "0"},
}

var insideSettings = []setting{{"ipv4/icmp_ratelimit", "0"}, {"ipv6/icmp/ratelimit", "0"}}

// write writes settings of the calling thread's namespace. Those that this kernel does not have are
// left out.
func write(settings []setting) error {
	for _, s := range settings {
		err := os.WriteFile("/proc/sys/net/"+s.path, []byte(s.value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func linkUp(index int) request {
	b := make([]byte, unix.SizeofIfInfomsg) // struct ifinfomsg: family, type, index, flags, change
	copy(b[4:], native(uint32(index)))
	copy(b[8:], native(unix.IFF_UP))
	copy(b[12:], native(unix.IFF_UP))
	return request{kind: unix.RTM_NEWLINK, data: b}
}

func familyOf(six bool) byte {
	if six {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// route is a request for a default route of the main table, of a type.
func route(six bool, kind, scope byte, index int, metric uint32) []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[4], b[5], b[6], b[7] = familyOf(six), unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, scope, kind
	b = appendAttr(b, unix.RTA_OIF, native(uint32(index)))
	return appendAttr(b, unix.RTA_PRIORITY, native(metric))
}

// localDefault makes all destinations the namespace's own. A look-up for a socket that is bound to
// a device passes it over, as it leads to lo.
func localDefault(six bool) request {
	scope := byte(unix.RT_SCOPE_HOST)
	metric := uint32(0)
	if six {
		scope, metric = unix.RT_SCOPE_UNIVERSE, 1
	}
	return request{unix.RTM_NEWROUTE, netlink.Create, route(six, unix.RTN_LOCAL, scope, 1, metric)}
}

func defaultRoute(index int, gateway netip.Addr) request {
	b := route(gateway.Is6(), unix.RTN_UNICAST, unix.RT_SCOPE_UNIVERSE, index, 1000+uint32(index))
	copy(b[8:], native(unix.RTNH_F_ONLINK))
	b = appendAttr(b, unix.RTA_GATEWAY, gateway.AsSlice())
	return request{unix.RTM_NEWROUTE, netlink.Create | netlink.Append, b}
}

// neighbor makes a permanent entry of the neighbor table.
func neighbor(index int, a netip.Addr, mac []byte) request {
	b := make([]byte, unix.SizeofNdMsg) // struct ndmsg: family, two pads, ifindex, state, flags, type
	b[0] = familyOf(a.Is6())
	copy(b[4:], native(uint32(index)))
	copy(b[8:], native(unix.NUD_PERMANENT)[:2])
	if hostNumber([]byte{1, 0}) != 1 { // big endian: the state is of 16 bits
		copy(b[8:], native(unix.NUD_PERMANENT)[2:])
	}
	b = appendAttr(b, unix.NDA_DST, a.AsSlice())
	b = appendAttr(b, unix.NDA_LLADDR, mac)
	return request{unix.RTM_NEWNEIGH, netlink.Create | netlink.Replace, b}
}

// introduce gives the twin the neighbors that the flows need: all gateways of its routes, and the
// senders and receivers of the flows that are on the link of a device.
func (t *Twin) introduce(ctx context.Context, flows []Flow) error {
	type entry struct {
		index int
		addr  netip.Addr
	}
	wanted := map[entry]bool{}
	for _, r := range t.Config.Routes {
		for _, h := range r.Hops {
			if h.Gateway.IsValid() {
				wanted[entry{h.Index, h.Gateway}] = true
			}
		}
	}
	addrs := t.strangers(flows)
	for _, r := range t.Config.Routes {
		if r.Type != unix.RTN_UNICAST || len(r.Hops) != 1 || r.Hops[0].Gateway.IsValid() || !r.Dst.IsValid() {
			continue
		}
		for _, a := range addrs {
			if r.Dst.Contains(a) {
				wanted[entry{r.Hops[0].Index, a}] = true
			}
		}
	}
	var requests []request
	for e := range wanted {
		if e.addr.IsMulticast() || t.introduced[e.index] != nil && slices.Contains(t.introduced[e.index], e.addr) {
			continue
		}
		i := slices.IndexFunc(t.outers, func(o outer) bool {
			return o.at.Index == e.index && o.inner.Up() &&
				o.inner.Carrier
		})
		if i < 0 || !t.outers[i].at.ethernet() || len(t.outers[i].mac) != 6 {
			continue
		}
		requests = append(requests, neighbor(e.index, e.addr, t.outers[i].mac))
		t.introduced[e.index] = append(t.introduced[e.index], e.addr)
	}
	if len(requests) == 0 {
		return nil
	}
	c, err := t.Inside.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	failed, err := performAll(ctx, c, requests)
	for _, e := range failed {
		err = errors.Join(err, e)
	}
	if err != nil {
		return fmt.Errorf("give the twin neighbors: %w", err)
	}
	return nil
}

// strangers are the addresses of the flows, and those that rules rewrite destinations to.
func (t *Twin) strangers(flows []Flow) []netip.Addr {
	var all []netip.Addr
	add := func(a netip.Addr) {
		if a.IsValid() && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	for _, f := range flows {
		add(f.From.Addr())
		add(f.To.Addr())
	}
	for _, a := range t.hints.targets {
		add(a.Addr())
	}
	return all
}
