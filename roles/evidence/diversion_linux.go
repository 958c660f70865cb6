package evidence

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
)

// diversions lists the rules of nf_tables that divert, also those that iptables-nft made. It reads
// them itself, because the library leaves out the statements that it does not know, tproxy among them.
func diversions() ([]Diversion, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("netfilter socket: %w", err)
	}
	defer conn.Close()
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, 4), // struct nfgenmsg: of all families
	})
	if err != nil {
		return nil, fmt.Errorf("list of rules: %w", err)
	}
	var all []Diversion
	marks := map[string]uint32{} // that a table's rules set
	var tables []string          // of all
	for _, m := range messages {
		r, err := parseRule(m.Data)
		if err != nil {
			return nil, err
		}
		if !ofIP[r.family] {
			continue
		}
		d, mark := r.follow()
		table := families[r.family] + " " + r.table
		if mark != 0 && marks[table] == 0 {
			marks[table] = mark
		}
		if d != nil {
			d.Rule = fmt.Sprintf("table %s chain %s", table, r.chain)
			all, tables = append(all, *d), append(tables, table)
		}
	}
	for i := range all {
		if all[i].Kind == TProxy && all[i].Mark == 0 {
			all[i].Mark = marks[tables[i]] // another rule may mark what this one diverts
		}
	}
	return all, nil
}

// rawRule is a rule as the kernel lists it.
type rawRule struct {
	family       nftables.TableFamily
	table, chain string
	statements   []statement
}

// statement is one of a rule's, with its attributes by their numbers.
type statement struct {
	name string
	data map[uint16][]byte
}

// parseRule reads a rule's message: struct nfgenmsg and attributes.
func parseRule(b []byte) (r rawRule, err error) {
	if len(b) < 4 {
		return r, fmt.Errorf("a rule of %d bytes", len(b))
	}
	r.family = nftables.TableFamily(b[0])
	ad, err := netlink.NewAttributeDecoder(b[4:])
	if err != nil {
		return r, fmt.Errorf("rule: %w", err)
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_RULE_TABLE:
			r.table = ad.String()
		case unix.NFTA_RULE_CHAIN:
			r.chain = ad.String()
		case unix.NFTA_RULE_EXPRESSIONS:
			ad.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					s := statement{data: map[uint16][]byte{}}
					list.Nested(s.parse)
					r.statements = append(r.statements, s)
				}
				return nil
			})
		}
	}
	if err := ad.Err(); err != nil {
		return r, fmt.Errorf("rule of chain %.60q: %w", r.chain, err)
	}
	return r, nil
}

func (s *statement) parse(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			s.name = ad.String()
		case unix.NFTA_EXPR_DATA:
			ad.Nested(func(data *netlink.AttributeDecoder) error {
				for data.Next() {
					s.data[data.Type()] = data.Bytes()
				}
				return nil
			})
		}
	}
	return nil
}

// number is an attribute of 32 bits; there are no others but of strings and data, and the
// queue's.
func (s statement) number(attribute uint16) uint32 {
	if b := s.data[attribute]; len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// value is an attribute with data: nested, as NFTA_DATA_VALUE.
func (s statement) value(attribute uint16) []byte {
	ad, err := netlink.NewAttributeDecoder(s.data[attribute])
	if err != nil {
		return nil
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_DATA_VALUE {
			return ad.Bytes()
		}
	}
	return nil
}

// follow goes through a rule's statements, which hand values on in registers. It gives nil for a
// rule that does not divert, and the mark that it sets.
func (r rawRule) follow() (d *Diversion, mark uint32) {
	values := map[uint32][]byte{}
	loaded := map[uint32]uint32{} // meta keys
	var seen Diversion
	switch r.family {
	case nftables.TableFamilyIPv4:
		seen.Families = []pfconf.Family{pfconf.Inet}
	case nftables.TableFamilyIPv6:
		seen.Families = []pfconf.Family{pfconf.Inet6}
	default:
		seen.Families = pfconf.Families
	}
	found := func(kind Kind) {
		seen.Kind = kind
		d = &seen
	}
	for _, s := range r.statements {
		switch s.name {
		case "immediate":
			values[s.number(unix.NFTA_IMMEDIATE_DREG)] = s.value(unix.NFTA_IMMEDIATE_DATA)
		case "bitwise":
			// Of a mark whose other bits stay: those that are set.
			values[s.number(unix.NFTA_BITWISE_DREG)] = s.value(unix.NFTA_BITWISE_XOR)
		case "meta":
			key := s.number(unix.NFTA_META_KEY)
			if to := s.number(unix.NFTA_META_DREG); to != 0 {
				loaded[to] = key
			} else if key == unix.NFT_META_MARK {
				mark = native32(values[s.number(unix.NFTA_META_SREG)])
			}
		case "payload", "ct":
			delete(loaded, s.number(1)) // the register has something else now; both have it as the first attribute
		case "cmp":
			if s.number(unix.NFTA_CMP_OP) == unix.NFT_CMP_EQ {
				seen.match(loaded[s.number(unix.NFTA_CMP_SREG)], s.value(unix.NFTA_CMP_DATA))
			}
		case "tproxy": // NFTA_TPROXY_FAMILY, _REG_ADDR, _REG_PORT
			found(TProxy)
			seen.at(values[s.number(2)], values[s.number(3)])
			switch s.number(1) {
			case unix.NFPROTO_IPV4:
				seen.Families = []pfconf.Family{pfconf.Inet}
			case unix.NFPROTO_IPV6:
				seen.Families = []pfconf.Family{pfconf.Inet6}
			}
		case "redir":
			found(Redirect)
			seen.at(nil, values[s.number(1)]) // NFTA_REDIR_REG_PROTO_MIN
		case "queue":
			found(Queue)
			seen.Queue = big16(s.data[unix.NFTA_QUEUE_NUM])
			seen.Last = seen.Queue + max(big16(s.data[unix.NFTA_QUEUE_TOTAL]), 1) - 1
			seen.Bypass = big16(s.data[unix.NFTA_QUEUE_FLAGS])&unix.NFT_QUEUE_FLAG_BYPASS != 0
		case "match": // of iptables: its name, revision and data
			seen.Proto = map[string]string{"tcp": "tcp", "udp": "udp"}[text(s.data[1])]
		case "target":
			// struct xt_NFQ_info_v1 to v3, linux/netfilter/xt_NFQUEUE.h: number, how many, and whether
			// it is bypassed.
			if info := s.data[3]; text(s.data[1]) == "NFQUEUE" && len(info) >= 2 {
				found(Queue)
				seen.Queue = binary.NativeEndian.Uint16(info)
				seen.Last = seen.Queue
				if len(info) >= 4 {
					seen.Last += max(binary.NativeEndian.Uint16(info[2:]), 1) - 1
				}
				seen.Bypass = len(info) >= 6 && binary.NativeEndian.Uint16(info[4:])&1 != 0
			}
			// struct xt_tproxy_target_info_v1, linux/netfilter/xt_TPROXY.h: mask and value of the
			// mark, the address in 16 bytes, the port.
			if info := s.data[3]; text(s.data[1]) == "TPROXY" && len(info) >= 26 {
				found(TProxy)
				mark = binary.NativeEndian.Uint32(info[4:])
				size := 4
				if r.family == nftables.TableFamilyIPv6 {
					size = 16
				}
				seen.at(info[8:8+size], info[24:26])
			}
		}
	}
	seen.Mark = mark
	return d, mark
}

// at takes where a rule leads; an address of zeros is none.
func (d *Diversion) at(address, port []byte) {
	d.Port = big16(port)
	if a, ok := netip.AddrFromSlice(address); ok && !a.IsUnspecified() {
		d.Address = a
	}
}

// match takes what a rule asks of packets.
func (d *Diversion) match(key uint32, data []byte) {
	if len(data) == 0 {
		return
	}
	switch key {
	case unix.NFT_META_L4PROTO:
		d.Proto = map[byte]string{protoTCP: "tcp", protoUDP: "udp"}[data[0]]
	case unix.NFT_META_NFPROTO:
		d.Families = []pfconf.Family{pfconf.Inet}
		if data[0] == unix.NFPROTO_IPV6 {
			d.Families = []pfconf.Family{pfconf.Inet6}
		}
	case unix.NFT_META_IIFNAME:
		d.Interface = text(data)
	}
}

// text is a string with NULs behind it.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

func native32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func big16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}
