package twin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// maxKeys bounds how many keys a big set is asked for.
const maxKeys = 4096

// Types of the parts of a set's key, as nft(8) numbers them.
const (
	typeIPv4    = 7
	typeIPv6    = 8
	typeProto   = 12
	typeService = 13
)

// keyParts are the types of a key's parts, 6 bits each in the type of a set; one of none but a few
// well known types is nil.
func keyParts(keyType uint32) []uint32 {
	var parts []uint32
	for ; keyType != 0; keyType >>= 6 {
		parts = append([]uint32{keyType & 0x3f}, parts...)
	}
	for _, p := range parts {
		if p != typeIPv4 && p != typeIPv6 && p != typeProto && p != typeService {
			return nil
		}
	}
	return parts
}

// Ask completes the big sets of nf_tables, of which Read takes a sample: it asks the kernel for the
// elements that have the flows' addresses and ports, those of the host and its neighbors. A replay
// has these elements and no others. Read has asked for the flows of Plan; for others it is called
// in the namespace that was read.
func (c *Snapshot) Ask(ctx context.Context, flows []Flow) error {
	if len(c.Partial) == 0 {
		return nil
	}
	conn, err := dial(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	addrs, ports := c.played(flows)
	for _, t := range c.Tables {
		for _, s := range t.Sets {
			if !s.Big {
				continue
			}
			for _, key := range keysOf(s, addrs, ports) {
				if err := ctx.Err(); err != nil {
					return err
				}
				found, err := askElement(conn, s, key)
				if err != nil {
					return fmt.Errorf("set %s: %w", s.Name, err)
				}
				for _, m := range found {
					if !slices.ContainsFunc(c.Asked,
						func(o NetlinkMessage) bool { return string(o.Data[4:]) == string(m.Data[4:]) }) {
						c.Asked = append(c.Asked, m)
					}
				}
			}
		}
	}
	return nil
}

// played are the addresses and ports that packets will have.
func (c *Snapshot) played(flows []Flow) (addrs []netip.Addr, ports []uint16) {
	for _, a := range c.Addrs {
		addrs = append(addrs, a.Local)
	}
	for _, n := range c.Neighbors {
		addrs = append(addrs, n.Addr)
	}
	for _, f := range flows {
		for _, end := range []netip.AddrPort{f.From, f.To} {
			if end.Addr().IsValid() {
				addrs = append(addrs, end.Addr())
			}
			if end.Port() != 0 {
				ports = append(ports, end.Port())
			}
		}
	}
	sortStable(addrs, netip.Addr.Compare)
	slices.Sort(ports)
	return slices.Compact(addrs), slices.Compact(ports)
}

// keysOf are the keys of a set that packets can have.
func keysOf(s *Set, addrs []netip.Addr, ports []uint16) [][]byte {
	keys := [][]byte{nil}
	parts := keyParts(s.KeyType)
	for _, part := range parts {
		var values [][]byte
		switch part {
		case typeIPv4, typeIPv6:
			for _, a := range addrs {
				if a.Is4() == (part == typeIPv4) {
					values = append(values, a.AsSlice())
				}
			}
		case typeProto:
			values = [][]byte{{unix.IPPROTO_TCP}, {unix.IPPROTO_UDP}}
		case typeService:
			for _, p := range ports {
				values = append(values, binary.BigEndian.AppendUint16(nil, p))
			}
		}
		var longer [][]byte
		for _, k := range keys {
			for _, v := range values {
				if len(longer) == maxKeys {
					break
				}
				one := append(slices.Clone(k), v...)
				for len(parts) > 1 && len(one)%4 != 0 { // each part of a concatenation fills registers
					one = append(one, 0)
				}
				longer = append(longer, one)
			}
		}
		keys = longer
	}
	return keys
}

// askElement asks for the element that has a key, and where it is an interval for its end.
func askElement(c *netlink.Conn, s *Set, key []byte) ([]NetlinkMessage, error) {
	var all []NetlinkMessage
	flags := []uint32{0}
	if s.Flags&setInterval != 0 && s.Flags&setConcat == 0 {
		flags = append(flags, elementEnd)
	}
	for _, flag := range flags {
		data := attrs{{unix.NFTA_DATA_VALUE, key}}.bytes()
		element := attrs{{unix.NFTA_SET_ELEM_KEY | nestedFlag, data}}
		if flag != 0 {
			element = append(element, attr{unix.NFTA_SET_ELEM_FLAGS, binary.BigEndian.AppendUint32(nil, flag)})
		}
		family := byte(0)
		for number, name := range families {
			if name == s.Family {
				family = number
			}
		}
		answers, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM,
				Flags: netlink.Request},
			Data: attrs{
				{unix.NFTA_SET_ELEM_LIST_TABLE, zero(s.Table)}, {unix.NFTA_SET_ELEM_LIST_SET, zero(s.Name)},
				// NFTA_LIST_ELEM
				{unix.NFTA_SET_ELEM_LIST_ELEMENTS | nestedFlag, appendAttr(nil, 1|nestedFlag, element.bytes())},
			}.append([]byte{family, unix.NFNETLINK_V0, 0, 0}),
		})
		if errors.Is(err, unix.ENOENT) {
			return all, nil // it is not in the set, or its interval is the last
		} else if err != nil {
			return nil, err
		}
		for _, m := range answers {
			all = append(all, NetlinkMessage{uint16(m.Header.Type), m.Data})
		}
	}
	return all, nil
}
