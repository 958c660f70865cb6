// Package xt has rules of x_tables as values: what iptables loads, through nf_tables as an
// extension's expression (nft_compat) or through a socket option as a table in one piece (Table).
// It needs no iptables. Numbers in extensions are in the machine's order, as C writes them.
package xt

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"pfdivert/pfconf"
)

// Rule is one of x_tables. What is zero is not asked for.
type Rule struct {
	In       string // the interface by which the packet came
	From, To netip.Addr
	Proto    int
	Matches  []Extension
	// Target is what the rule does. An extension without name is a Verdict, or none: then the rule
	// only counts.
	Target  Extension
	Verdict Verdict
	// Jump is the chain in which it goes on, in place of Target.
	Jump string
}

// Verdict is what a rule without a target's extension does with the packet.
type Verdict int32

// The verdicts (linux/netfilter/x_tables.h); Next is none.
const (
	Next   Verdict = 0
	Drop   Verdict = -1 // -NF_DROP - 1
	Accept Verdict = -2 // -NF_ACCEPT - 1
	Return Verdict = -5 // XT_RETURN
)

// Extension is a match or a target of a module: its name and revision, its struct, and the words by
// which iptables -S shows it.
type Extension struct {
	Name     string
	Revision uint8
	Data     []byte
	Text     string
}

// String is the rule as iptables -S shows it, without "-A CHAIN".
func (r Rule) String() string {
	var words []string
	for _, s := range []struct {
		option string
		a      netip.Addr
	}{{"-s", r.From}, {"-d", r.To}} {
		if s.a.IsValid() {
			words = append(words, fmt.Sprintf("%s %v/%d", s.option, s.a, s.a.BitLen()))
		}
	}
	if r.In != "" {
		words = append(words, "-i "+r.In)
	}
	if r.Proto != 0 {
		words = append(words, "-p "+pfconf.ProtoName(r.Proto))
	}
	for _, m := range r.Matches {
		words = append(words, "-m "+m.Name+" "+m.Text)
	}
	switch {
	case r.Jump != "":
		words = append(words, "-j "+r.Jump)
	case r.Target.Name != "":
		words = append(words, "-j "+r.Target.Name+" "+r.Target.Text)
	case r.Verdict == Drop:
		words = append(words, "-j DROP")
	case r.Verdict == Accept:
		words = append(words, "-j ACCEPT")
	case r.Verdict == Return:
		words = append(words, "-j RETURN")
	}
	return strings.Join(words, " ")
}

// words writes numbers of 32 bits as C does.
func words(all ...uint32) []byte {
	var b []byte
	for _, w := range all {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return b
}

// Ports matches a port of TCP or UDP at either end, 0 for any: struct xt_tcp, xt_udp.
func Ports(p pfconf.Proto, from, to uint16) Extension {
	e := Extension{Name: p.String()}
	var text []string
	for _, x := range []struct {
		option string
		port   uint16
	}{{"--sport", from}, {"--dport", to}} {
		low, high := uint16(0), uint16(0xffff)
		if x.port != 0 {
			low, high = x.port, x.port
			text = append(text, fmt.Sprintf("%s %d", x.option, x.port))
		}
		e.Data = binary.NativeEndian.AppendUint16(e.Data, low)
		e.Data = binary.NativeEndian.AppendUint16(e.Data, high)
	}
	e.Data, e.Text = append(e.Data, 0, 0), strings.Join(text, " ")
	if p == pfconf.TCP {
		e.Data = append(e.Data, 0, 0)
	}
	return e
}

// PortsOf returns the ports of a match that Ports returned; ok is false for another one.
func PortsOf(name string, data []byte) (from, to uint16, ok bool) {
	if name != pfconf.TCP.String() && name != pfconf.UDP.String() || len(data) < 8 {
		return 0, 0, false
	}
	// Of any port the lower bound is 0.
	return binary.NativeEndian.Uint16(data), binary.NativeEndian.Uint16(data[4:]), true
}

// ConnMarked matches a packet whose conntrack entry has the mark: struct xt_connmark_mtinfo1.
func ConnMarked(mark uint32) Extension {
	return Extension{"connmark", 1, append(words(mark, ^uint32(0)), 0, 0, 0, 0), fmt.Sprintf("--mark %#x", mark)}
}

// NotMarked matches a packet that has not the mark: struct xt_mark_mtinfo1.
func NotMarked(mark uint32) Extension {
	return Extension{"mark", 1, append(words(mark, ^uint32(0)), 1, 0, 0, 0), fmt.Sprintf("! --mark %#x", mark)}
}

// Replying matches what goes the other way than the packet that began its conntrack entry: struct
// xt_conntrack_mtinfo3.
func Replying() Extension {
	const size, matchFlags, invertFlags, direction = 164, 146, 148, 1 << 12 // XT_CONNTRACK_DIRECTION
	data := make([]byte, size)
	binary.NativeEndian.PutUint16(data[matchFlags:], direction)
	binary.NativeEndian.PutUint16(data[invertFlags:], direction)
	return Extension{"conntrack", 3, data, "--ctdir REPLY"}
}

// TransparentSocket matches what belongs to a socket of this host that is transparent: struct
// xt_socket_mtinfo3, XT_SOCKET_TRANSPARENT.
func TransparentSocket() Extension { return Extension{"socket", 3, []byte{1}, "--transparent"} }

// EchoReply6 matches ICMPv6 echo replies: struct ip6t_icmp.
func EchoReply6() Extension {
	return Extension{"icmp6", 0, []byte{129, 0, 0xff, 0}, "--icmpv6-type 129"} // RFC 4443, 4.2
}

// commentSize is XT_MAX_COMMENT_LEN.
const commentSize = 256

// Comment matches all: struct xt_comment_info.
func Comment(text string) Extension {
	data := make([]byte, commentSize)
	copy(data[:commentSize-1], text)
	return Extension{"comment", 0, data, "--comment " + quoted(text)}
}

// quoted is a text as iptables -S shows it: in quotes if a shell would split it.
func quoted(text string) string {
	if strings.Contains(text, " ") {
		return `"` + text + `"`
	}
	return text
}

// TProxy returns the packet to the transparent socket that is connected to its sender or else
// listens at the address, and drops it without one. mark is set then; 0 leaves the packet's. It is
// struct xt_tproxy_target_info_v1.
func TProxy(to netip.AddrPort, mark uint32) Extension {
	mask := ^uint32(0)
	if mark == 0 {
		mask = 0
	}
	data := address(words(mask, mark), to.Addr())
	data = append(binary.BigEndian.AppendUint16(data, to.Port()), 0, 0)
	return Extension{"TPROXY", 1, data,
		fmt.Sprintf("--on-port %d --on-ip %v --tproxy-mark %#x/%#x", to.Port(), to.Addr(), mark, mask)}
}

// address appends a union nf_inet_addr.
func address(b []byte, a netip.Addr) []byte {
	var field [16]byte
	copy(field[:], a.AsSlice())
	return append(b, field[:]...)
}

// SetMark sets the packet's mark: struct xt_mark_tginfo2.
func SetMark(mark uint32) Extension {
	return Extension{"MARK", 2, words(mark, ^uint32(0)), fmt.Sprintf("--set-xmark %#x/0xffffffff", mark)}
}

// SetConnMark sets the mark of the conntrack entry: struct xt_connmark_tginfo2, XT_CONNMARK_SET.
func SetConnMark(mark uint32) Extension {
	return Extension{"CONNMARK", 2, append(words(mark, ^uint32(0), ^uint32(0)), 0, 0, 0, 0),
		fmt.Sprintf("--set-xmark %#x/0xffffffff", mark)}
}

// NFQueue hands the packet to the netfilter queue; without a reader it is dropped, or passes with
// bypass. It is struct xt_NFQ_info_v3.
func NFQueue(number uint16, bypass bool) Extension {
	e := Extension{Name: "NFQUEUE", Revision: 3, Text: fmt.Sprintf("--queue-num %d", number)}
	flags := uint16(0)
	if bypass {
		flags = 1 // NFQ_FLAG_BYPASS
		e.Text += " --queue-bypass"
	}
	for _, n := range []uint16{number, 1, flags} {
		e.Data = binary.NativeEndian.AppendUint16(e.Data, n)
	}
	return e
}

// Flags of struct nf_nat_range, linux/netfilter/nf_nat.h.
const (
	rangeAddresses = 1 << 0 // NF_NAT_RANGE_MAP_IPS
	rangePorts     = 1 << 1 // NF_NAT_RANGE_PROTO_SPECIFIED
)

// DNAT translates the destination of the connection: struct nf_nat_range2.
func DNAT(to netip.AddrPort) Extension {
	data := address(address(words(rangeAddresses|rangePorts), to.Addr()), to.Addr())
	for range 2 {
		data = binary.BigEndian.AppendUint16(data, to.Port())
	}
	return Extension{"DNAT", 2, append(data, 0, 0, 0, 0), fmt.Sprintf("--to-destination %v", to)}
}

// SNAT translates the source of the connection, and leaves its port.
func SNAT(to netip.Addr) Extension {
	e := natRange("SNAT", rangeAddresses, to, 0)
	if to.Is6() {
		e.Revision = 1
	}
	e.Text = fmt.Sprintf("--to-source %v", to)
	return e
}

// Redirect translates the destination of the connection to an address of the interface by which it
// came.
func Redirect(f pfconf.Family, port uint16) Extension {
	e := natRange("REDIRECT", rangePorts, f.Unspecified(), port)
	e.Text = fmt.Sprintf("--to-ports %d", port)
	return e
}

// natRange is a target with an address and a port: struct nf_nat_ipv4_multi_range_compat, and
// nf_nat_range of IPv6.
func natRange(name string, flags uint32, a netip.Addr, port uint16) Extension {
	e := Extension{Name: name, Data: words(flags)}
	if a.Is4() {
		e.Data = words(1, flags)
	}
	for range 2 {
		e.Data = append(e.Data, a.AsSlice()...)
	}
	for range 2 {
		e.Data = binary.BigEndian.AppendUint16(e.Data, port)
	}
	return e
}
