package twin

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const vethInfoPeer = 1 // VETH_INFO_PEER

// wired reports whether the copy of a device is a veth, and whether its other end is outside.
func (c *Snapshot) wired(l Link) (veth, outside bool) {
	switch {
	case l.Loopback, l.Kind == "bridge", l.Kind == "vrf":
		return false, false
	}
	return true, c.mate(l) == nil
}

// mate is the other end of a veth both ends of which the host has, else nil.
func (c *Snapshot) mate(l Link) *Link {
	if l.Kind != "veth" || l.PeerAway || l.Peer == 0 {
		return nil
	}
	for i, o := range c.Links {
		if o.Index == l.Peer && o.Kind == "veth" && o.Peer == l.Index && !o.PeerAway {
			return &c.Links[i]
		}
	}
	return nil
}

// ethernet reports whether the device has neighbors and an address that they know.
func (l Link) ethernet() bool {
	return l.Type == unix.ARPHRD_ETHER && len(l.MAC) == 6 && l.Flags&unix.IFF_NOARP == 0
}

// address is the device's MAC address, or one for a device that has none.
func (l Link) address() []byte {
	if len(l.MAC) == 6 && (l.Type == unix.ARPHRD_ETHER || l.Loopback) {
		return l.MAC
	}
	return binary.BigEndian.AppendUint32([]byte{2, 0}, uint32(l.Index))
}

// devices makes the network devices, their settings and addresses, and switches them on.
func (r *replay) devices(outside int) error {
	var make, join, ports, up []request
	var made, joined, ported []Link
	links := slices.Clone(r.Links)
	// Bridges and vrfs come before what belongs to them.
	sortStable(links, func(a, b Link) int { return rank(a) - rank(b) })
	for _, l := range links {
		if veth, _ := r.wired(l); veth {
			if mate := r.mate(l); mate != nil && mate.Index < l.Index {
				continue // made with its other end
			}
		}
		if l.Loopback {
			continue
		}
		make, made = append(make, request{unix.RTM_NEWLINK, netlink.Create | netlink.Excl, r.newLink(l, outside)}),
			append(made, l)
	}
	if err := r.route(make, func(i int, err error) {
		r.lack("device", "%s (%s): %v", made[i].Name, kindOf(made[i]),
			err)
	}); err != nil {
		return err
	}
	for _, l := range links {
		join, joined = append(join, request{unix.RTM_SETLINK, 0, r.setLink(l)}), append(joined, l)
		if port := r.portData(l); port != nil {
			ports, ported = append(ports, request{unix.RTM_NEWLINK, 0, port}), append(ported, l)
		}
		up = append(up, request{unix.RTM_SETLINK, 0, l.message(l.Flags&(unix.IFF_UP|unix.IFF_MULTICAST|unix.IFF_NOARP),
			unix.IFF_UP|unix.IFF_MULTICAST|unix.IFF_NOARP)})
	}
	if err := r.route(join, func(i int, err error) {
		r.lack("device", "settings of %s: %v", joined[i].Name,
			err)
	}); err != nil {
		return err
	}
	if err := r.route(ports, func(i int, err error) {
		r.lack("device", "port %s of a bridge: %v", ported[i].Name,
			err)
	}); err != nil {
		return err
	}
	if err := r.deviceSettings(); err != nil {
		return err
	}
	if err := r.addresses(unix.AF_INET); err != nil {
		return err
	}
	if err := r.route(up, func(i int, err error) {
		r.lack("device", "%s: switch on: %v", joined[i].Name,
			err)
	}); err != nil {
		return err
	}
	if err := r.addresses(unix.AF_INET6); err != nil {
		return err
	}
	return r.surplusAddresses()
}

// rank is the order in which devices are made.
func rank(l Link) int {
	if l.Kind == "bridge" || l.Kind == "vrf" {
		return 0
	}
	return 1
}

func kindOf(l Link) string {
	if l.Kind == "" {
		return "a network card"
	}
	return l.Kind
}

// message is a struct ifinfomsg for the device.
func (l Link) message(flags, change uint32) []byte {
	b := make([]byte, 4, 128) // family, pad, type
	b = binary.NativeEndian.AppendUint32(b, uint32(l.Index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// common are the attributes that a device has in any namespace.
func (l Link) common(b []byte, mac []byte) []byte {
	b = appendAttr(b, unix.IFLA_IFNAME, zero(l.Name))
	b = appendAttr(b, unix.IFLA_MTU, native(min(max(l.MTU, 68), 65535)))
	b = appendAttr(b, unix.IFLA_GROUP, native(l.Group))
	if mac != nil {
		b = appendAttr(b, unix.IFLA_ADDRESS, mac)
	}
	return b
}

// newLink makes a device: a bridge or vrf of its own kind, all others as a veth.
func (r *replay) newLink(l Link, outside int) []byte {
	mac := l.address()
	if l.Kind == "bridge" && l.Carrier && !r.hasPorts(l) {
		mac = nil // choosing an address would take its carrier away
	}
	b := l.common(l.message(0, 0), mac)
	switch l.Kind {
	case "bridge":
		return appendAttr(b, unix.IFLA_LINKINFO|nestedFlag, attrs{
			{unix.IFLA_INFO_KIND, zero("bridge")}, {unix.IFLA_INFO_DATA | nestedFlag, r.bridgeData(l).bytes()},
		}.bytes())
	case "vrf":
		data := appendAttr(nil, unix.IFLA_VRF_TABLE, native(l.VRFTable))
		return appendAttr(b, unix.IFLA_LINKINFO|nestedFlag, attrs{
			{unix.IFLA_INFO_KIND, zero("vrf")}, {unix.IFLA_INFO_DATA | nestedFlag, data},
		}.bytes())
	}
	var peer []byte
	if mate := r.mate(l); mate != nil {
		peer = mate.common(mate.message(0, 0), mate.address())
	} else {
		end := l
		flags, mac := uint32(unix.IFF_MULTICAST), []byte(nil)
		if !l.ethernet() {
			// Where neither end asks for neighbors, packets carry the sender's own address.
			flags, mac = unix.IFF_NOARP, l.address()
		}
		// It can't be made switched on: the device that is made first has no peer yet (veth_open).
		end.Group = 0
		peer = end.common(end.message(flags, unix.IFF_UP|unix.IFF_MULTICAST|unix.IFF_NOARP), mac)
		peer = appendAttr(peer, unix.IFLA_NET_NS_FD, native(uint32(outside)))
	}
	return appendAttr(b, unix.IFLA_LINKINFO|nestedFlag, attrs{
		{unix.IFLA_INFO_KIND, zero("veth")}, {unix.IFLA_INFO_DATA | nestedFlag,
			appendAttr(nil, vethInfoPeer|nestedFlag, peer)},
	}.bytes())
}

// hasPorts reports whether a bridge has any.
func (c *Snapshot) hasPorts(bridge Link) bool {
	return slices.ContainsFunc(c.Links, func(l Link) bool { return l.Master == bridge.Index })
}

// rawLink is the message that a device was read from.
func (c *Snapshot) rawLink(index int) attrs {
	for i, l := range c.Links {
		if l.Index == index {
			all, err := split(c.Dump.Links[i], unix.SizeofIfInfomsg)
			if err == nil {
				return all
			}
		}
	}
	return nil
}

// bridgeAttributes are those of a bridge that decide what happens to its packets (IFLA_BR_). It is
// made without spanning tree, whose delay no flow waits out.
var bridgeAttributes = []uint16{
	unix.IFLA_BR_GROUP_FWD_MASK, unix.IFLA_BR_MCAST_SNOOPING,
	unix.IFLA_BR_NF_CALL_IPTABLES, unix.IFLA_BR_NF_CALL_IP6TABLES, unix.IFLA_BR_NF_CALL_ARPTABLES,
}

func (r *replay) bridgeData(l Link) attrs {
	var data attrs
	info, err := r.rawLink(l.Index).nest(unix.IFLA_LINKINFO)
	if err != nil {
		return nil
	}
	has, err := info.nest(unix.IFLA_INFO_DATA)
	if err != nil {
		return nil
	}
	for _, kind := range bridgeAttributes {
		if value := has.get(kind); value != nil {
			data = append(data, attr{kind, value})
		}
	}
	return data
}

// portAttributes are those of a bridge's port that decide what happens to its packets
// (IFLA_BRPORT_).
var portAttributes = []uint16{
	unix.IFLA_BRPORT_MODE, unix.IFLA_BRPORT_LEARNING, unix.IFLA_BRPORT_UNICAST_FLOOD, unix.IFLA_BRPORT_PROXYARP,
	unix.IFLA_BRPORT_ISOLATED, unix.IFLA_BRPORT_NEIGH_SUPPRESS,
}

// portData sets what a bridge has for one of its ports; nil for other devices.
func (r *replay) portData(l Link) []byte {
	info, err := r.rawLink(l.Index).nest(unix.IFLA_LINKINFO)
	if err != nil || text(info.get(unix.IFLA_INFO_SLAVE_KIND)) != "bridge" {
		return nil
	}
	has, err := info.nest(unix.IFLA_INFO_SLAVE_DATA)
	if err != nil {
		return nil
	}
	var port attrs
	for _, kind := range portAttributes {
		if value := has.get(kind); value != nil {
			port = append(port, attr{kind, value})
		}
	}
	return appendAttr(l.message(0, 0), unix.IFLA_LINKINFO|nestedFlag, attrs{
		{unix.IFLA_INFO_SLAVE_KIND, zero("bridge")}, {unix.IFLA_INFO_SLAVE_DATA | nestedFlag, port.bytes()},
	}.bytes())
}

// setLink has the device join its master and sets what IPv4 has for it.
func (r *replay) setLink(l Link) []byte {
	b := l.message(0, 0)
	raw := r.rawLink(l.Index)
	if master := r.link(l.Master); master != nil && rank(*master) == 0 {
		b = appendAttr(b, unix.IFLA_MASTER, native(uint32(l.Master)))
	}
	if conf := ipv4Conf(raw); conf != nil {
		var values attrs
		for id := range 64 {
			if conf4[id] != "" && len(conf) >= 4*id {
				values = append(values, attr{uint16(id), conf[4*id-4 : 4*id]})
			}
		}
		inet := appendAttr(nil, unix.IFLA_INET_CONF|nestedFlag, values.bytes())
		b = appendAttr(b, unix.IFLA_AF_SPEC|nestedFlag, appendAttr(nil, unix.AF_INET|nestedFlag, inet))
	}
	return b
}

// link returns the device with an index, nil if there is none.
func (c *Snapshot) link(index int) *Link {
	for i := range c.Links {
		if c.Links[i].Index == index && index != 0 {
			return &c.Links[i]
		}
	}
	return nil
}

// ipv4Conf are the numbers that IPv4 has for a device, in the order of IPV4_DEVCONF_ from 1; nil
// without IPv4.
func ipv4Conf(raw attrs) []byte { return afConf(raw, unix.AF_INET, unix.IFLA_INET_CONF) }

// ipv6Conf are those of IPv6, from 0.
func ipv6Conf(raw attrs) []byte { return afConf(raw, unix.AF_INET6, unix.IFLA_INET6_CONF) }

func afConf(raw attrs, family, kind uint16) []byte {
	spec, err := raw.nest(unix.IFLA_AF_SPEC)
	if err != nil {
		return nil
	}
	inet, err := spec.nest(family)
	if err != nil {
		return nil
	}
	return inet.get(kind)
}

// deviceSettings writes those settings of IPv6 that are not the host's; netlink sets none of them.
func (r *replay) deviceSettings() error {
	if !hasIPv6() {
		return nil
	}
	now := &Dump{}
	if err := now.readRoutes(r.ctx, unix.RTM_GETLINK); err != nil {
		return err
	}
	twin, err := decode(now)
	if err != nil {
		return err
	}
	for _, l := range r.Links {
		want, got := ipv6Conf(r.rawLink(l.Index)), ipv6Conf(twin.rawLink(l.Index))
		for id := range 64 {
			name := conf6[id]
			if name == "" || len(want) < 4*id+4 || len(got) < 4*id+4 ||
				bytes.Equal(want[4*id:4*id+4], got[4*id:4*id+4]) {
				continue
			}
			file := "ipv6/conf/" + l.Name + "/" + name
			if err := writeSetting(file, fmt.Sprint(int32(host32(want[4*id:4*id+4])))); err != nil {
				r.lack("setting", "%s: %v", file, err)
			}
		}
	}
	return nil
}
