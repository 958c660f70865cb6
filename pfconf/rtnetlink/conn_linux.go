// Package rtnetlink reads and changes links, addresses, routes, policy rules and neighbours of
// Linux (rtnetlink(7)), as values of net/netip.
package rtnetlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conn is a NETLINK_ROUTE socket. It is safe for concurrent use. Errors of its methods are those
// of the kernel, such as unix.EEXIST.
type Conn struct{ netlink *netlink.Conn }

// Dial opens a Conn in the calling thread's network namespace, which it stays in. The caller
// closes it.
func Dial() (*Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open a route socket: %w", bare(err))
	}
	return &Conn{c}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return bare(c.netlink.Close()) }

// With passes a Conn to f and closes it afterwards.
func With(f func(*Conn) error) error {
	c, err := Dial()
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

// set sends a message and waits until the kernel has done what it asks for.
func (c *Conn) set(kind, flags uint16, m *message) error {
	_, err := c.execute(kind, flags|unix.NLM_F_ACK, m)
	return err
}

// get sends a question that has one answer.
func (c *Conn) get(kind uint16, m *message) ([]byte, error) {
	list, err := c.execute(kind, 0, m)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("rtnetlink: %d answers where one was expected", len(list))
	}
	return list[0].Data, nil
}

// dumpTries is how often a list is asked for that changes meanwhile.
const dumpTries = 5

// dump asks for a list and passes each of its messages to take.
func (c *Conn) dump(kind uint16, m *message, take func([]byte) error) error {
	for range dumpTries {
		list, err := c.execute(kind, unix.NLM_F_DUMP, m)
		if err != nil {
			return err
		}
		interrupted := false
		for _, m := range list {
			interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		}
		if interrupted {
			continue
		}
		for _, m := range list {
			if err := take(m.Data); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("rtnetlink: the list changed %d times while it was read", dumpTries)
}

func (c *Conn) execute(kind, flags uint16, m *message) ([]netlink.Message, error) {
	attributes, err := m.attributes.Encode()
	if err != nil {
		return nil, err
	}
	list, err := c.netlink.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.HeaderFlags(flags)},
		Data:   append(m.header, attributes...),
	})
	return list, bare(err)
}

// bare returns the kernel's error alone: the caller says what was asked.
func bare(err error) error {
	var op *netlink.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// message is the body of a request: a struct of the kernel's, and attributes.
type message struct {
	header     []byte
	attributes *netlink.AttributeEncoder
}

func newMessage(header []byte) *message { return &message{header, netlink.NewAttributeEncoder()} }

// addr adds an address, unless it is not set.
func (m *message) addr(kind uint16, a netip.Addr) {
	if a.IsValid() {
		m.attributes.Bytes(kind, a.AsSlice())
	}
}

// number adds a number of 32 bits, unless it is 0.
func number[T ~int | ~uint32](ae *netlink.AttributeEncoder, kind uint16, v T) {
	if v != 0 {
		ae.Uint32(kind, uint32(v))
	}
}

// text adds a string that ends with a NUL, unless it is empty.
func text(ae *netlink.AttributeEncoder, kind uint16, s string) {
	if s != "" {
		ae.String(kind, s)
	}
}

// parse passes the attributes behind the first header bytes of b to each.
func parse(b []byte, header int, each func(ad *netlink.AttributeDecoder)) error {
	if len(b) < header {
		return fmt.Errorf("rtnetlink: a message of %d bytes", len(b))
	}
	ad, err := netlink.NewAttributeDecoder(b[header:])
	if err != nil {
		return fmt.Errorf("rtnetlink: %w", err)
	}
	for ad.Next() {
		each(ad)
	}
	if err := ad.Err(); err != nil {
		return fmt.Errorf("rtnetlink: %w", err)
	}
	return nil
}

func native32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

// address reads an attribute that is an address.
func address(ad *netlink.AttributeDecoder) netip.Addr {
	a, _ := netip.AddrFromSlice(ad.Bytes())
	return a
}

// prefix is an attribute's address with a length of the header's.
func prefix(a netip.Addr, bits uint8) (netip.Prefix, error) {
	p := netip.PrefixFrom(a, int(bits))
	if !p.IsValid() {
		return p, fmt.Errorf("rtnetlink: address %v with %d bits", a, bits)
	}
	return p, nil
}

// everything returns the prefix of all addresses of an address family, such as AF_INET.
func everything(family uint8) netip.Prefix {
	switch family {
	case unix.AF_INET:
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	case unix.AF_INET6:
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.Prefix{}
}

// familyOf returns AF_INET or AF_INET6.
func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
