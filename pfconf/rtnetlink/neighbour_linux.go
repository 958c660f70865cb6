package rtnetlink

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Neighbour is the hardware address of another host's address.
type Neighbour struct {
	Link     int
	Addr     netip.Addr
	Hardware net.HardwareAddr
	State    uint16 // NUD_*
}

// neighbourHeader is a struct ndmsg: family, padding, index, state, flags, type.
func neighbourHeader(family uint8, link int, state uint16) []byte {
	b := binary.NativeEndian.AppendUint32([]byte{family, 0, 0, 0}, uint32(link))
	return append(binary.NativeEndian.AppendUint16(b, state), 0, 0)
}

func parseNeighbour(b []byte) (n Neighbour, err error) {
	err = parse(b, unix.SizeofNdMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NDA_DST:
			n.Addr = address(ad)
		case unix.NDA_LLADDR:
			n.Hardware = ad.Bytes()
		}
	})
	if err == nil {
		n.Link, n.State = int(native32(b[4:])), binary.NativeEndian.Uint16(b[8:])
	}
	return n, err
}

// Neighbours lists the neighbours that are known by all interfaces.
func (c *Conn) Neighbours() ([]Neighbour, error) {
	var all []Neighbour
	err := c.dump(unix.RTM_GETNEIGH, newMessage(neighbourHeader(unix.AF_UNSPEC, 0, 0)), func(b []byte) error {
		n, err := parseNeighbour(b)
		all = append(all, n)
		return err
	})
	return all, err
}

// SetNeighbour adds the neighbour or replaces what was known of its address.
func (c *Conn) SetNeighbour(n Neighbour) error {
	m := newMessage(neighbourHeader(familyOf(n.Addr), n.Link, n.State))
	m.addr(unix.NDA_DST, n.Addr)
	m.attributes.Bytes(unix.NDA_LLADDR, n.Hardware)
	return c.set(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, m)
}
