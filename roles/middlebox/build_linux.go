package middlebox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/nft"
	"pfdivert/pfconf/rtnetlink"
)

// Hardware addresses, locally administered.
var (
	ofClient = net.HardwareAddr{0x02, 0, 0, 0xbc, 2, 1}
	ofLeft   = net.HardwareAddr{0x02, 0, 0, 0xbc, 2, 2}
	ofRight  = net.HardwareAddr{0x02, 0, 0, 0xbc, 2, 3}
	ofServer = net.HardwareAddr{0x02, 0, 0, 0xbc, 2, 4}
	ofBridge = net.HardwareAddr{0x02, 0, 0, 0xbc, 2, 5}
)

// build makes the three hosts and joins them.
func (b *box) build(ctx context.Context) (err error) {
	for _, h := range []**host{&b.client, &b.server, &b.middle} {
		if *h, err = newHost(); err != nil {
			return err
		}
		if err := b.settings(); err != nil {
			return err
		}
	}
	if b.left, err = b.cable(ctx, "left0", ofLeft, "client0", ofClient, b.client); err != nil {
		return err
	}
	if b.right, err = b.cable(ctx, "right0", ofRight, "server0", ofServer, b.server); err != nil {
		return err
	}
	b.towards = b.left
	// To reach the client and the server from the middle, and the middle's hardware as they see it.
	toClient, toServer := b.left, b.right
	seenByClient, seenByServer := ofLeft, ofRight
	table := 0 // of the middle's routes
	switch b.Joint {
	case script.Bridge, script.FilteredBridge:
		if err := b.bridge(ctx); err != nil {
			return err
		}
		toClient, toServer = b.towards, b.towards
		seenByClient, seenByServer = ofServer, ofClient // a bridge is not seen
	case script.Flowtable:
	case script.VRF, script.AnyVRF:
		if err := b.vrfs(); err != nil {
			return err
		}
		table = vrfTable
	default:
		return fmt.Errorf("there is no joint %q", b.Joint)
	}
	client, servers := []netip.Addr{b.Client.Addr()}, []netip.Addr{b.Server.Addr(), b.Beside.Addr()}
	return errors.Join(
		b.middle.reach(toClient, table, ofClient, client), b.middle.reach(toServer, table, ofServer, servers),
		b.client.own("client0", client), b.server.own("server0", servers),
		b.client.reachBy("client0", seenByClient, servers), b.server.reachBy("server0", seenByServer, client),
		b.settle(ctx))
}

// settings are those of a namespace that is new: it takes many from the first one.
func (b *box) settings() error {
	set := map[string]string{
		"ipv4/ip_forward": "1", "ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
		"ipv4/conf/all/send_redirects": "0", "ipv4/conf/default/send_redirects": "0",
	}
	if b.Client.Addr().Is6() {
		set = map[string]string{"ipv6/conf/all/disable_ipv6": "0", "ipv6/conf/default/disable_ipv6": "0",
			"ipv6/conf/all/forwarding": "1"}
	}
	for name, value := range set {
		if err := setting(name, value); err != nil {
			return err
		}
	}
	return nil
}

// setting sets a sysctl below net of the thread's namespace.
func setting(name, value string) error {
	f, err := os.OpenFile("/proc/sys/net/"+name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n")
	return errors.Join(err, f.Close())
}

// cable lays a cable between the middle, where the thread is, and another host. Both ends are up.
func (b *box) cable(ctx context.Context, name string, hardware net.HardwareAddr, farName string, far net.HardwareAddr,
	to *host) (rtnetlink.Link, error) {
	routes := b.middle.routes
	link, err := routes.AddLink(rtnetlink.NewLink{Name: name, Kind: rtnetlink.Veth, Hardware: hardware,
		Queues: 1, Peer: &rtnetlink.NewLink{Name: farName, Hardware: far, Queues: 1, Namespace: int(to.ns.Fd())}})
	if err != nil {
		return link, fmt.Errorf("create veth pair: %w", err)
	}
	end, err := to.routes.Link(farName)
	if err != nil {
		return link, err
	}
	return link, errors.Join(up(routes, link), up(to.routes, end), carrier(ctx, routes, link.Index))
}

// up brings an interface up that gets no link-local address: it would be tentative for a second.
func up(routes *rtnetlink.Conn, l rtnetlink.Link) error {
	if err := routes.SetNoLinkLocal(l.Index); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) &&
		!errors.Is(err, unix.EINVAL) { // a kernel without IPv6
		return fmt.Errorf("set IPv6 address generation of %s: %w", l.Name, err)
	}
	if err := routes.SetUp(l.Index); err != nil {
		return fmt.Errorf("bring %s up: %w", l.Name, err)
	}
	return nil
}

// carrier waits until the interface has one: the kernel says so from a work queue.
func carrier(ctx context.Context, routes *rtnetlink.Conn, index int) error {
	return await(ctx, "carrier", func() (bool, error) {
		link, err := routes.LinkAt(index)
		return link.State == rtnetlink.OperUp, err
	})
}

// await waits for what the kernel does in a work queue of its own.
func await(ctx context.Context, what string, is func() (bool, error)) error {
	for {
		if there, err := is(); there || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// own gives the host addresses.
func (h *host) own(name string, addresses []netip.Addr) error {
	link, err := h.routes.Link(name)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		new := rtnetlink.Address{Link: link.Index, Prefix: single(a)}
		if a.Is6() {
			new.Flags = unix.IFA_F_NODAD
		}
		if err := h.routes.AddAddress(new); err != nil {
			return fmt.Errorf("add address %v: %w", a, err)
		}
	}
	return nil
}

func (h *host) reachBy(name string, hardware net.HardwareAddr, addresses []netip.Addr) error {
	link, err := h.routes.Link(name)
	if err != nil {
		return err
	}
	return h.reach(link, 0, hardware, addresses)
}

// reach gives the host routes and neighbours: the addresses are behind the hardware address.
func (h *host) reach(link rtnetlink.Link, table int, hardware net.HardwareAddr, addresses []netip.Addr) error {
	for _, a := range addresses {
		route := rtnetlink.Route{Link: link.Index, Dst: single(a), Table: table}
		if a.Is4() {
			route.Scope = unix.RT_SCOPE_LINK
		}
		if err := h.routes.AddRoute(route); err != nil {
			return fmt.Errorf("add route to %v by %s: %w", a, link.Name, err)
		}
		err := h.routes.SetNeighbour(rtnetlink.Neighbour{Link: link.Index, Addr: a, Hardware: hardware,
			State: unix.NUD_PERMANENT})
		if err != nil {
			return fmt.Errorf("add neighbour %v: %w", a, err)
		}
	}
	return nil
}

// settle waits until packets for the hosts' own addresses are theirs: of IPv6 that is so a moment
// after an address was added.
func (b *box) settle(ctx context.Context) error {
	lo, err := b.middle.routes.Link("lo")
	if err != nil {
		return err
	}
	if err := b.middle.routes.SetUp(lo.Index); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	if b.Client.Addr().Is4() {
		return nil
	}
	for h, a := range map[*host]netip.Addr{b.client: b.Client.Addr(), b.server: b.Server.Addr()} {
		err := await(ctx, "a local route to "+a.String(), func() (bool, error) {
			routes, err := h.routes.Routes(unix.AF_INET6, unix.RT_TABLE_LOCAL)
			for _, r := range routes {
				if r.Type == unix.RTN_LOCAL && r.Dst.Addr() == a {
					return true, nil
				}
			}
			return false, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// bridge makes the middle's ends ports of a bridge.
func (b *box) bridge(ctx context.Context) error {
	routes := b.middle.routes
	bridge, err := routes.AddLink(rtnetlink.NewLink{Name: "bridge0", Kind: rtnetlink.Bridge, Hardware: ofBridge})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = &need.MissingError{Feature: need.Bridge, Err: err}
	}
	if err != nil {
		return fmt.Errorf("create a bridge: %w", err)
	}
	value := "0"
	if b.Joint == script.FilteredBridge {
		value = "1"
	}
	for _, name := range []string{"iptables", "ip6tables"} {
		err := setting("bridge/bridge-nf-call-"+name, value)
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist) && value == "0": // without br_netfilter no one asks it
		case errors.Is(err, fs.ErrNotExist):
			return &need.MissingError{Feature: need.BridgeNetfilter, Err: err}
		default:
			return err
		}
	}
	// A port that joins a bridge which is up forwards at once: it speaks no spanning tree.
	err = up(routes, bridge)
	for _, port := range []rtnetlink.Link{b.left, b.right} {
		err = errors.Join(err, routes.SetMaster(port.Index, bridge.Index))
	}
	b.towards = bridge
	if err != nil {
		return err
	}
	// Until then it drops what the host sends (dev_activate, net/sched/sch_generic.c).
	return carrier(ctx, routes, bridge.Index)
}

// takeUp has the bridge, if there is one, hand to its host what the client sends to the server.
func (b *box) takeUp() error {
	if b.towards.Kind != rtnetlink.Bridge || b.omits(script.TakenUp) {
		return nil
	}
	return nft.TakeUp(b.left.Name, b.Server.Addr(), ofBridge)
}
