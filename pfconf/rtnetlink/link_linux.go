package rtnetlink

import (
	"encoding/binary"
	"net"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Link is a network interface.
type Link struct {
	Index    int
	Name     string
	Kind     string // "veth", "bridge", …; "" of hardware and of lo
	MTU      int
	Flags    uint32 // IFF_*
	State    uint8  // OperState
	Hardware net.HardwareAddr
}

// OperUp is the State of an interface that passes packets (RFC 2863; uapi/linux/if.h).
const OperUp = 6

// Kinds of links.
const (
	Bridge = "bridge"
	Veth   = "veth"
	VRF    = "vrf"
)

// Attributes of links, uapi/linux/if_link.h and uapi/linux/veth.h.
const (
	infoPeer    = 1 // VETH_INFO_PEER
	infoTable   = 1 // IFLA_VRF_TABLE
	addrGenMode = 8 // IFLA_INET6_ADDR_GEN_MODE
	genModeNone = 1 // IN6_ADDR_GEN_MODE_NONE
)

// linkHeader is a struct ifinfomsg: family, padding, hardware type, index, flags, mask of flags.
func linkHeader(index int, flags, mask uint32) *message {
	b := binary.NativeEndian.AppendUint32(make([]byte, 4, 16), uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return newMessage(binary.NativeEndian.AppendUint32(b, mask))
}

func parseLink(b []byte) (l Link, err error) {
	err = parse(b, unix.SizeofIfInfomsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			l.Name = ad.String()
		case unix.IFLA_MTU:
			l.MTU = int(ad.Uint32())
		case unix.IFLA_OPERSTATE:
			l.State = ad.Uint8()
		case unix.IFLA_ADDRESS:
			l.Hardware = ad.Bytes()
		case unix.IFLA_LINKINFO:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == unix.IFLA_INFO_KIND {
						l.Kind = ad.String()
					}
				}
				return nil
			})
		}
	})
	if err == nil {
		l.Index, l.Flags = int(native32(b[4:])), native32(b[8:])
	}
	return l, err
}

// Links lists the network namespace's interfaces.
func (c *Conn) Links() ([]Link, error) {
	var all []Link
	err := c.dump(unix.RTM_GETLINK, linkHeader(0, 0, 0), func(b []byte) error {
		l, err := parseLink(b)
		all = append(all, l)
		return err
	})
	return all, err
}

// Link returns the interface with the name; that there is none is unix.ENODEV.
func (c *Conn) Link(name string) (Link, error) {
	m := linkHeader(0, 0, 0)
	m.attributes.String(unix.IFLA_IFNAME, name)
	return c.link(m)
}

// LinkAt returns the interface with the index; that there is none is unix.ENODEV.
func (c *Conn) LinkAt(index int) (Link, error) { return c.link(linkHeader(index, 0, 0)) }

func (c *Conn) link(m *message) (Link, error) {
	b, err := c.get(unix.RTM_GETLINK, m)
	if err != nil {
		return Link{}, err
	}
	return parseLink(b)
}

// NewLink describes an interface to make.
type NewLink struct {
	Name     string
	Kind     string
	Hardware net.HardwareAddr // nil for one that the kernel chooses
	Queues   int              // for each direction; 0 for the kernel's default: one for each CPU
	Peer     *NewLink         // the other end of a Veth
	Table    int              // the routing table of a VRF
	// Namespace is a descriptor of the network namespace to make the interface in; 0 for the
	// Conn's.
	Namespace int
}

func (n NewLink) encode(ae *netlink.AttributeEncoder) {
	ae.String(unix.IFLA_IFNAME, n.Name)
	if n.Hardware != nil {
		ae.Bytes(unix.IFLA_ADDRESS, n.Hardware)
	}
	number(ae, unix.IFLA_NUM_TX_QUEUES, n.Queues)
	number(ae, unix.IFLA_NUM_RX_QUEUES, n.Queues)
	number(ae, unix.IFLA_NET_NS_FD, n.Namespace)
}

// AddLink makes the interface and returns it.
func (c *Conn) AddLink(n NewLink) (Link, error) {
	m := linkHeader(0, 0, 0)
	n.encode(m.attributes)
	m.attributes.Nested(unix.IFLA_LINKINFO, func(ae *netlink.AttributeEncoder) error {
		ae.String(unix.IFLA_INFO_KIND, n.Kind)
		if n.Table != 0 {
			ae.Nested(unix.IFLA_INFO_DATA, func(ae *netlink.AttributeEncoder) error {
				ae.Uint32(infoTable, uint32(n.Table))
				return nil
			})
		}
		if n.Peer != nil {
			ae.Nested(unix.IFLA_INFO_DATA, func(ae *netlink.AttributeEncoder) error {
				ae.Do(infoPeer, func() ([]byte, error) {
					peer := linkHeader(0, 0, 0)
					n.Peer.encode(peer.attributes)
					b, err := peer.attributes.Encode()
					return append(peer.header, b...), err
				})
				return nil
			})
		}
		return nil
	})
	if err := c.set(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m); err != nil {
		return Link{}, err
	}
	return c.Link(n.Name)
}

// DeleteLink removes the interface, and with it a Veth's other end.
func (c *Conn) DeleteLink(index int) error {
	return c.set(unix.RTM_DELLINK, 0, linkHeader(index, 0, 0))
}

// SetFlags sets those of the interface's flags (IFF_*) that are in mask.
func (c *Conn) SetFlags(index int, flags, mask uint32) error {
	return c.set(unix.RTM_NEWLINK, 0, linkHeader(index, flags, mask))
}

// SetUp brings the interface up.
func (c *Conn) SetUp(index int) error { return c.SetFlags(index, unix.IFF_UP, unix.IFF_UP) }

// SetDown takes the interface down.
func (c *Conn) SetDown(index int) error { return c.SetFlags(index, 0, unix.IFF_UP) }

// SetName renames the interface, which must be down on Linux before 6.2.
func (c *Conn) SetName(index int, name string) error {
	m := linkHeader(index, 0, 0)
	m.attributes.String(unix.IFLA_IFNAME, name)
	return c.set(unix.RTM_NEWLINK, 0, m)
}

// SetMTU sets the interface's MTU, in bytes.
func (c *Conn) SetMTU(index, mtu int) error {
	m := linkHeader(index, 0, 0)
	m.attributes.Uint32(unix.IFLA_MTU, uint32(mtu))
	return c.set(unix.RTM_NEWLINK, 0, m)
}

// SetMaster makes the interface a port of the bridge, or of another interface that has some.
func (c *Conn) SetMaster(index, master int) error {
	m := linkHeader(index, 0, 0)
	m.attributes.Uint32(unix.IFLA_MASTER, uint32(master))
	return c.set(unix.RTM_NEWLINK, 0, m)
}

// SetNoLinkLocal keeps the kernel from giving the interface a link-local address of IPv6 when it
// comes up. Such an address would be tentative for a second or two.
func (c *Conn) SetNoLinkLocal(index int) error {
	m := linkHeader(index, 0, 0)
	m.attributes.Nested(unix.IFLA_AF_SPEC, func(ae *netlink.AttributeEncoder) error {
		ae.Nested(unix.AF_INET6, func(ae *netlink.AttributeEncoder) error {
			ae.Uint8(addrGenMode, genModeNone)
			return nil
		})
		return nil
	})
	return c.set(unix.RTM_NEWLINK, 0, m)
}
