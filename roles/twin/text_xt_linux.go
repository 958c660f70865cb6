package twin

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// iptablesText writes a rule of iptables-nft as iptables-save does, without "-A CHAIN".
func iptablesText(parts []part, six bool) string {
	var head, rest []string
	action := ""
	option := map[string]string{"ip saddr": "-s", "ip6 saddr": "-s", "ip daddr": "-d", "ip6 daddr": "-d",
		"iifname": "-i", "oifname": "-o", "meta l4proto": "-p", "ip protocol": "-p"}
	order := []string{"-s", "-d", "-i", "-o", "-p"}
	first := map[string]string{}
	for _, x := range parts {
		switch o := option[x.field]; {
		case x.xt && x.verd:
			action = x.text
		case x.xt:
			rest = append(rest, x.text)
		case x.field == "":
			switch text := iptablesAction(x.text, six); {
			case x.text == "counter":
			case strings.HasPrefix(text, "-m"):
				rest = append(rest, text)
			default:
				action = text
			}
		case o == "":
			text := iptablesMatch(x)
			if i := len(rest) - 1; i >= 0 && strings.HasPrefix(rest[i],
				strings.Join(strings.Fields(text)[:2], " ")+" --sport") {
				text = rest[i] + text[strings.Index(text, " --"):] // sport and dport are one match
				rest = rest[:i]
			}
			rest = append(rest, text)
		default:
			value := x.value
			switch o {
			case "-s", "-d":
				if !strings.Contains(value, "/") {
					value += map[bool]string{false: "/32", true: "/128"}[six]
				}
			case "-i", "-o":
				if s, err := strconv.Unquote(value); err == nil {
					value = s
				}
				if begin, wild := strings.CutSuffix(value, "*"); wild {
					value = begin + "+"
				}
			}
			first[o] = bang(x.not) + o + " " + value
		}
	}
	for _, o := range order {
		if first[o] != "" {
			head = append(head, first[o])
		}
	}
	all := append(head, rest...)
	if action != "" {
		all = append(all, action)
	}
	return strings.Join(all, " ")
}

func bang(not bool) string {
	if not {
		return "! "
	}
	return ""
}

// iptablesMatch writes a condition that iptables-nft asks in nf_tables' own way.
func iptablesMatch(x part) string {
	proto, what, _ := strings.Cut(x.field, " ")
	field, mask, masked := strings.Cut(strings.TrimRight(x.field, "=! "), " & ")
	not := x.not || strings.HasSuffix(x.field, "!=")
	switch {
	case what == "sport" || what == "dport":
		return "-m " + proto + " " + bang(not) + "--" + what + " " + strings.ReplaceAll(x.value, "-", ":")
	case what == "flags":
		value, of, ok := strings.Cut(x.value, " / ")
		if !ok {
			of = value
		}
		return "-m tcp " + bang(not) + "--tcp-flags " + strings.ToUpper(of+" "+value)
	case field == "meta mark" || field == "ct mark":
		t := "-m " + map[string]string{"meta mark": "mark ", "ct mark": "connmark "}[field] + bang(not) + "--mark " +
			shortHex(x.value)
		if masked {
			t += "/" + shortHex(mask)
		}
		return t
	case x.field == "ct state":
		return "-m conntrack " + bang(not) + "--ctstate " + strings.ToUpper(x.value)
	case x.field == "icmp type":
		return "-m icmp " + bang(not) + "--icmp-type " + x.value
	case x.field == "icmpv6 type":
		return "-m icmp6 " + bang(not) + "--icmpv6-type " + x.value
	}
	return "-m " + x.nft()
}

// shortHex writes a number as iptables does: 0x1 for 0x00000001.
func shortHex(s string) string {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return s
	}
	return fmt.Sprintf("0x%x", n)
}

func iptablesAction(text string, six bool) string {
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "accept", "drop", "return":
		return "-j " + strings.ToUpper(word)
	case "jump":
		return "-j " + rest
	case "goto":
		return "-g " + rest
	case "masquerade":
		return "-j MASQUERADE"
	case "redirect":
		if rest == "" {
			return "-j REDIRECT"
		}
		return "-j REDIRECT --to-ports " + strings.TrimPrefix(rest, "to :")
	case "dnat":
		return "-j DNAT --to-destination " + strings.TrimPrefix(rest, "to ")
	case "snat":
		return "-j SNAT --to-source " + strings.TrimPrefix(rest, "to ")
	case "notrack":
		return "-j CT --notrack"
	case "limit":
		rest = strings.TrimPrefix(rest, "rate ")
		rate, burst, _ := strings.Cut(rest, " burst ")
		rate = strings.NewReplacer("second", "sec", "minute", "min").Replace(rate)
		if burst != "" {
			rate += " --limit-burst " + strings.TrimSuffix(burst, " packets")
		}
		return "-m limit --limit " + rate
	case "log":
		return strings.Replace(strings.Replace("-j LOG "+rest, "prefix", "--log-prefix", 1), "LOG  ", "LOG", 1)
	case "reject":
		kind := "icmp-port-unreachable"
		if six {
			kind = "icmp6-port-unreachable"
		}
		switch {
		case strings.HasSuffix(rest, "tcp reset"):
			kind = "tcp-reset"
		case rest != "":
			f := strings.Fields(rest)
			kind = strings.Replace(f[1], "icmpv6", "icmp6", 1) + "-" + f[len(f)-1]
		}
		return "-j REJECT --reject-with " + kind
	}
	return "-j " + text
}

// cstruct is a structure of the kernel's, in the machine's order; what is not there is 0.
type cstruct []byte

func (s cstruct) u8(at int) uint32 {
	if at < len(s) {
		return uint32(s[at])
	}
	return 0
}

func (s cstruct) u16(at int) uint32 {
	if at+2 <= len(s) {
		return uint32(binary.NativeEndian.Uint16(s[at:]))
	}
	return 0
}

func (s cstruct) u32(at int) uint32 {
	if at+4 <= len(s) {
		return binary.NativeEndian.Uint32(s[at:])
	}
	return 0
}

func (s cstruct) be16(at int) uint32 {
	if at+2 <= len(s) {
		return uint32(binary.BigEndian.Uint16(s[at:]))
	}
	return 0
}

func (s cstruct) text(at, size int) string {
	if at >= len(s) {
		return ""
	}
	return text(s[at:min(at+size, len(s))])
}

func (s cstruct) addr(at int, six bool) netip.Addr {
	size := 4
	if six {
		size = 16
	}
	if at+size > len(s) {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(s[at : at+size])
	return a
}

// portRange writes an option of ports, "" where all are asked.
func portRange(option string, low, high uint32, not bool) string {
	switch {
	case low == 0 && high == 65535 && !not:
		return ""
	case low == high:
		return fmt.Sprintf(" %s--%s %d", bang(not), option, low)
	}
	return fmt.Sprintf(" %s--%s %d:%d", bang(not), option, low, high)
}

// xtMatch writes a match of xtables by its name and revision (struct xt_*, linux/netfilter/xt_*.h),
// and reports whether that is all of it.
func xtMatch(name string, revision uint32, data []byte) (string, bool) {
	s := cstruct(data)
	head := "-m " + name
	switch name {
	case "comment":
		return head + " --comment " + quoted(s.text(0, 256)), true
	case "tcp":
		t := head + portRange("sport", s.u16(0), s.u16(2), s.u8(11)&1 != 0) +
			portRange("dport", s.u16(4), s.u16(6), s.u8(11)&2 != 0)
		if s.u8(9) != 0 {
			t += " " + bang(s.u8(11)&4 != 0) + "--tcp-flags " + tcpFlags(s.u8(9)) + " " + tcpFlags(s.u8(10))
		}
		if s.u8(8) != 0 {
			t += fmt.Sprintf(" --tcp-option %d", s.u8(8))
		}
		return t, true
	case "udp", "udplite":
		return head + portRange("sport", s.u16(0), s.u16(2), s.u8(8)&1 != 0) +
			portRange("dport", s.u16(4), s.u16(6), s.u8(8)&2 != 0), true
	case "multiport":
		var list []string
		for i := 0; i < int(s.u8(1)) && i < 15; i++ {
			p := fmt.Sprint(s.u16(2 + 2*i))
			if s.u8(32+i) != 0 && i+1 < 15 {
				i++
				p += fmt.Sprintf(":%d", s.u16(2+2*i))
			}
			list = append(list, p)
		}
		return fmt.Sprintf("%s %s--%s %s", head, bang(s.u8(47) != 0),
			[]string{"sports", "dports", "ports"}[min(s.u8(0), 2)], strings.Join(list, ",")), revision == 1
	case "mark", "connmark":
		t := fmt.Sprintf("%s %s--mark 0x%x", head, bang(s.u8(8) != 0), s.u32(0))
		if s.u32(4) != 0xffffffff {
			t += fmt.Sprintf("/0x%x", s.u32(4))
		}
		return t, revision == 1
	case "state":
		return head + " --state " + ctStates(s.u32(0), 64), true
	case "conntrack":
		return conntrackMatch(head, revision, s)
	case "socket":
		t := head
		for i, o := range []string{" --transparent", " --nowildcard", " --restore-skmark"} {
			if s.u8(0)&(1<<i) != 0 {
				t += o
			}
		}
		return t, true
	case "owner":
		t := head
		for i, o := range []string{"uid-owner", "gid-owner"} {
			if s.u8(16)&(1<<i) == 0 {
				continue
			}
			t += fmt.Sprintf(" %s--%s %d", bang(s.u8(17)&(1<<i) != 0), o, s.u32(8*i))
			if s.u32(8*i+4) != s.u32(8*i) {
				t += fmt.Sprintf("-%d", s.u32(8*i+4))
			}
		}
		if s.u8(16)&4 != 0 {
			t += " " + bang(s.u8(17)&4 != 0) + "--socket-exists"
		}
		return t, revision == 1
	case "addrtype":
		t := head
		if s.u16(0) != 0 {
			t += " " + bang(s.u32(4)&1 != 0) + "--src-type " + addressTypes(s.u16(0))
		}
		if s.u16(2) != 0 {
			t += " " + bang(s.u32(4)&2 != 0) + "--dst-type " + addressTypes(s.u16(2))
		}
		if s.u32(4)&4 != 0 {
			t += " --limit-iface-in"
		}
		if s.u32(4)&8 != 0 {
			t += " --limit-iface-out"
		}
		return t, revision == 1
	case "limit":
		period := max(s.u32(0), 1)
		units := []struct {
			name string
			mult uint32
		}{{"day", 864000000}, {"hour", 36000000}, {"min", 600000}, {"sec", 10000}}
		i := 1
		for ; i < len(units); i++ {
			if period > units[i].mult || units[i].mult/period < units[i].mult%period {
				break
			}
		}
		t := fmt.Sprintf("%s --limit %d/%s", head, units[i-1].mult/period, units[i-1].name)
		if s.u32(4) != 5 {
			t += fmt.Sprintf(" --limit-burst %d", s.u32(4))
		}
		return t, true
	case "rpfilter":
		t := head
		for i, o := range []string{" --loose", " --validmark", " --accept-local", " --invert"} {
			if s.u8(0)&(1<<i) != 0 {
				t += o
			}
		}
		return t, true
	case "physdev":
		t := head
		bits, inverted := s.u8(65), s.u8(64)
		for _, o := range []struct {
			bit  uint32
			text string
		}{{8, "--physdev-is-in"}, {1, "--physdev-in " + s.text(0, 16)}, {16, "--physdev-is-out"},
			{2, "--physdev-out " + s.text(32, 16)}, {4, "--physdev-is-bridged"}} {
			if bits&o.bit != 0 {
				t += " " + bang(inverted&o.bit != 0) + o.text
			}
		}
		return t, true
	case "iprange":
		six := s.u32(4)|s.u32(8)|s.u32(12)|s.u32(36)|s.u32(40)|s.u32(44) != 0
		t := head
		if s.u8(64)&1 != 0 {
			t += fmt.Sprintf(" %s--src-range %v-%v", bang(s.u8(64)&16 != 0), s.addr(0, six), s.addr(16, six))
		}
		if s.u8(64)&2 != 0 {
			t += fmt.Sprintf(" %s--dst-range %v-%v", bang(s.u8(64)&32 != 0), s.addr(32, six), s.addr(48, six))
		}
		return t, true
	case "icmp", "icmp6":
		option := map[string]string{"icmp": "icmp-type", "icmp6": "icmpv6-type"}[name]
		if s.u8(0) == 255 && name == "icmp" {
			return head + " --icmp-type any", true
		}
		t := fmt.Sprintf("%s %s--%s %d", head, bang(s.u8(3) != 0), option, s.u8(0))
		if s.u8(1) == s.u8(2) {
			t += fmt.Sprintf("/%d", s.u8(1))
		}
		return t, true
	case "statistic":
		if s.u16(0) == 0 {
			return fmt.Sprintf("%s --mode random %s--probability %.11f", head, bang(s.u16(2) != 0),
				float64(s.u32(4))/0x80000000), true
		}
		return fmt.Sprintf("%s --mode nth %s--every %d --packet %d", head, bang(s.u16(2) != 0), s.u32(4)+1, s.u32(8)),
			true
	case "pkttype":
		names := []string{"unicast", "broadcast", "multicast"}
		return fmt.Sprintf("%s %s--pkt-type %s", head, bang(s.u32(4) != 0), names[min(s.u32(0), 2)]), true
	case "mac":
		if len(s) >= 6 {
			return fmt.Sprintf("%s %s--mac-source %02x:%02x:%02x:%02x:%02x:%02x", head, bang(s.u32(8) != 0), s[0],
				s[1], s[2], s[3], s[4], s[5]), true
		}
	case "length":
		return fmt.Sprintf("%s %s--length %d:%d", head, bang(s.u8(4) != 0), s.u16(0), s.u16(2)), true
	}
	return head + " …", false
}

// quoted writes a string for a shell, as iptables-save does: in quotes where it needs some.
func quoted(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r == '_' || r == '-' || r == '.' || r == '/' || r == ':' || r >= '0' && r <= '9' || r >= 'a' &&
			r <= 'z' || r >= 'A' && r <= 'Z')
	}) {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func conntrackMatch(head string, revision uint32, s cstruct) (string, bool) {
	flags, inverted, state := s.u16(146), s.u16(148), s.u16(150)
	if revision == 1 {
		state = s.u8(150)
	}
	not := func(bit uint32) string { return bang(inverted&bit != 0) }
	if flags&0x2000 != 0 { // XT_CONNTRACK_STATE_ALIAS
		return "-m state " + not(1) + "--state " + ctStates(state, 256), true
	}
	t, known := head, uint32(1|2|0x40|0x1000|0x2000|4|8|0x200)
	if flags&1 != 0 { // XT_CONNTRACK_STATE
		t += " " + not(1) + "--ctstate " + ctStates(state, 256)
	}
	if flags&2 != 0 {
		t += fmt.Sprintf(" %s--ctproto %d", not(2), s.u16(136))
	}
	six := s.u32(4)|s.u32(36) != 0
	if flags&4 != 0 {
		t += " " + not(4) + "--ctorigsrc " + maskedAddr(s, 0, six)
	}
	if flags&8 != 0 {
		t += " " + not(8) + "--ctorigdst " + maskedAddr(s, 32, six)
	}
	if flags&0x200 != 0 {
		port := s.u16(140)
		if revision < 3 {
			port = s.be16(140)
		}
		t += fmt.Sprintf(" %s--ctorigdstport %d", not(0x200), port)
	}
	if flags&0x40 != 0 { // XT_CONNTRACK_STATUS
		t += " " + not(0x40) + "--ctstatus " + strings.ToUpper(bitNames(uint64(s.u16(152)),
			[]bitName{{1, "expected"}, {2, "seen_reply"}, {4, "assured"}, {8, "confirmed"}}))
	}
	if flags&0x1000 != 0 { // XT_CONNTRACK_DIRECTION: an inverted one is REPLY
		t += " --ctdir " + map[bool]string{false: "ORIGINAL", true: "REPLY"}[inverted&0x1000 != 0]
	}
	return t, flags&^known == 0 && revision >= 1 && revision <= 3
}

func maskedAddr(s cstruct, at int, six bool) string {
	a := s.addr(at, six)
	size := 4
	if six {
		size = 16
	}
	if at+16+size > len(s) {
		return a.String()
	}
	if bits, ok := ones(s[at+16 : at+16+size]); ok && bits < a.BitLen() {
		return netip.PrefixFrom(a, bits).String()
	}
	return a.String()
}

// ctStates writes states; the bit of untracked ones is another in each match.
func ctStates(n, untracked uint32) string {
	names := []bitName{{1, "INVALID"}, {8, "NEW"}, {4, "RELATED"}, {2, "ESTABLISHED"}, {uint64(untracked), "UNTRACKED"}}
	if untracked == 256 {
		names = append(names, bitName{64, "SNAT"}, bitName{128, "DNAT"})
	}
	return bitNames(uint64(n), names)
}

func tcpFlags(n uint32) string {
	if n == 0 {
		return "NONE"
	}
	return bitNames(uint64(n), []bitName{{1, "FIN"}, {2, "SYN"}, {4, "RST"}, {8, "PSH"}, {16, "ACK"}, {32, "URG"}})
}

func addressTypes(n uint32) string {
	var all []string
	for i := range uint64(16) {
		if n&(1<<i) != 0 {
			all = append(all, strings.ToUpper(addressType(i)))
		}
	}
	return strings.Join(all, ",")
}

// xtTarget writes a target of xtables, and reports whether that is all of it.
func xtTarget(name string, revision uint32, data []byte, six bool) (string, bool) {
	s := cstruct(data)
	head := "-j " + name
	switch name {
	case "MARK":
		return fmt.Sprintf("%s --set-xmark 0x%x/0x%x", head, s.u32(0), s.u32(4)), revision == 2
	case "CONNMARK":
		mode, whole := s.u8(12), true
		if revision == 2 {
			mode, whole = s.u8(14), s.u8(13) == 0 // no bits are shifted
		}
		switch mode {
		case 0:
			return fmt.Sprintf("%s --set-xmark 0x%x/0x%x", head, s.u32(0), s.u32(4)), whole
		case 1:
			return fmt.Sprintf("%s --save-mark --nfmask 0x%x --ctmask 0x%x", head, s.u32(8), s.u32(4)), whole
		}
		return fmt.Sprintf("%s --restore-mark --nfmask 0x%x --ctmask 0x%x", head, s.u32(8), s.u32(4)), whole
	case "TPROXY":
		addr, port := s.addr(8, false), s.be16(12)
		if revision >= 1 {
			addr, port = s.addr(8, six), s.be16(24)
		}
		return fmt.Sprintf("%s --on-port %d --on-ip %v --tproxy-mark 0x%x/0x%x", head, port, addr, s.u32(4), s.u32(0)),
			true
	case "REDIRECT", "DNAT", "SNAT", "MASQUERADE", "NETMAP":
		return natTarget(head, name, revision, s, six)
	case "CT":
		if s.u16(0)&1 != 0 {
			return head + " --notrack", true
		}
		t := head
		if z := s.u16(2); z != 0 {
			t += fmt.Sprintf(" --zone %d", z)
		}
		if h := s.text(12, 16); h != "" {
			t += " --helper " + h
		}
		return t, true
	case "NOTRACK", "TRACE":
		return head, true
	case "LOG":
		if p := s.text(2, 30); p != "" {
			return head + " --log-prefix " + quoted(p), true
		}
		return head, true
	case "NFLOG":
		t := head
		if p := s.text(12, 64); p != "" {
			t += " --nflog-prefix " + quoted(p)
		}
		if g := s.u16(4); g != 0 {
			t += fmt.Sprintf(" --nflog-group %d", g)
		}
		return t, true
	case "TCPMSS":
		if s.u16(0) == 0xffff {
			return head + " --clamp-mss-to-pmtu", true
		}
		return fmt.Sprintf("%s --set-mss %d", head, s.u16(0)), true
	case "REJECT":
		names := []string{"icmp-net-unreachable", "icmp-host-unreachable", "icmp-proto-unreachable",
			"icmp-port-unreachable", "", "icmp-net-prohibited", "icmp-host-prohibited", "tcp-reset",
			"icmp-admin-prohibited"}
		if six {
			names = []string{"icmp6-no-route", "icmp6-adm-prohibited", "", "icmp6-addr-unreachable",
				"icmp6-port-unreachable", "", "tcp-reset", "icmp6-policy-fail", "icmp6-reject-route"}
		}
		if n := s.u32(0); int(n) < len(names) {
			return head + " --reject-with " + names[n], true
		}
	case "NFQUEUE":
		t := fmt.Sprintf("%s --queue-num %d", head, s.u16(0))
		if n := s.u16(2); revision >= 1 && n > 1 {
			t = fmt.Sprintf("%s --queue-balance %d:%d", head, s.u16(0), s.u16(0)+n-1)
		}
		if revision >= 2 && s.u16(4)&1 != 0 {
			t += " --queue-bypass"
		}
		return t, true
	}
	return head + " …", false
}

// natTarget writes those with a struct nf_nat_ipv4_multi_range_compat, nf_nat_range or
// nf_nat_range2.
func natTarget(head, name string, revision uint32, s cstruct, six bool) (string, bool) {
	flags, low, high := s.u32(4), s.be16(16), s.be16(18)
	from, to := s.addr(8, false), s.addr(12, false)
	if six || name == "DNAT" && revision >= 1 || name == "NETMAP" && revision >= 1 {
		flags, low, high = s.u32(0), s.be16(36), s.be16(38)
		from, to = s.addr(4, six), s.addr(20, six)
	}
	ports := ""
	if flags&2 != 0 { // NF_NAT_RANGE_PROTO_SPECIFIED
		ports = fmt.Sprint(low)
		if high != low {
			ports += fmt.Sprintf("-%d", high)
		}
	}
	t := head
	switch name {
	case "REDIRECT", "MASQUERADE":
		if ports != "" {
			t += " --to-ports " + ports
		}
	default:
		where := ""
		if flags&1 != 0 { // NF_NAT_RANGE_MAP_IPS
			where = from.String()
			if to != from {
				where += "-" + to.String()
			}
			if from.Is6() && ports != "" {
				where = "[" + where + "]"
			}
		}
		if ports != "" {
			where += ":" + ports
		}
		t += " " + map[string]string{"DNAT": "--to-destination", "SNAT": "--to-source", "NETMAP": "--to"}[name] + " " +
			where
	}
	for _, o := range []struct {
		bit  uint32
		text string
	}{{4, " --random"}, {8, " --persistent"}, {16, " --random-fully"}} {
		if flags&o.bit != 0 {
			t += o.text
		}
	}
	return t, name != "NETMAP"
}

// setMatch writes a match with a set of ipset, which a rule knows by its index.
func (w *writer) setMatch(s cstruct) string {
	name := fmt.Sprintf("#%d", s.u16(0))
	if i := slices.IndexFunc(w.c.IPSets, func(x *IPSet) bool { return uint32(x.Index) == s.u16(0) }); i >= 0 {
		name = w.c.IPSets[i].Name
	}
	var dirs []string
	for i := range min(s.u8(2), 6) {
		dirs = append(dirs, map[bool]string{false: "dst", true: "src"}[s.u8(3)&(2<<i) != 0])
	}
	return fmt.Sprintf("-m set %s--match-set %s %s", bang(s.u8(3)&1 != 0), name, strings.Join(dirs, ","))
}
