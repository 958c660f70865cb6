package rtnetlink

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Address is an address of an interface with the prefix of its network.
type Address struct {
	Link   int
	Prefix netip.Prefix
	Flags  uint32 // IFA_F_*
}

// message is a struct ifaddrmsg with the address: family, length, flags, scope, index.
func (a Address) message() *message {
	b := []byte{familyOf(a.Prefix.Addr()), uint8(a.Prefix.Bits()), 0, 0}
	m := newMessage(binary.NativeEndian.AppendUint32(b, uint32(a.Link)))
	m.addr(unix.IFA_LOCAL, a.Prefix.Addr())
	m.addr(unix.IFA_ADDRESS, a.Prefix.Addr())
	number(m.attributes, unix.IFA_FLAGS, a.Flags)
	return m
}

// parseAddress reads a struct ifaddrmsg. Of an interface with a peer the own address is in
// IFA_LOCAL and the peer's in IFA_ADDRESS; IPv6 has IFA_ADDRESS alone where there is no peer.
func parseAddress(b []byte) (a Address, err error) {
	var local, other netip.Addr
	err = parse(b, unix.SizeofIfAddrmsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFA_LOCAL:
			local = address(ad)
		case unix.IFA_ADDRESS:
			other = address(ad)
		case unix.IFA_FLAGS:
			a.Flags = ad.Uint32()
		}
	})
	if err != nil {
		return a, err
	}
	if !local.IsValid() {
		local = other
	}
	a.Link = int(native32(b[4:]))
	a.Prefix, err = prefix(local, b[1])
	return a, err
}

// Addresses lists the addresses of all interfaces, of AF_INET, AF_INET6, or AF_UNSPEC for both.
func (c *Conn) Addresses(family uint8) ([]Address, error) {
	var all []Address
	header := make([]byte, unix.SizeofIfAddrmsg)
	header[0] = family
	err := c.dump(unix.RTM_GETADDR, newMessage(header), func(b []byte) error {
		if len(b) > 0 && b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
			return nil
		}
		a, err := parseAddress(b)
		all = append(all, a)
		return err
	})
	return all, err
}

// AddAddress gives an interface the address; that it has it already is unix.EEXIST.
func (c *Conn) AddAddress(a Address) error {
	return c.set(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a.message())
}

// DeleteAddress takes the address from an interface.
func (c *Conn) DeleteAddress(a Address) error { return c.set(unix.RTM_DELADDR, 0, a.message()) }
