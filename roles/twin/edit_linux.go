package twin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
)

// change is an edit of a host's configuration: what to type on the host, and the same for a copy.
type change struct {
	command string
	words   bool // command is for a person: no command does it
	do      func(d *Dump) error
}

// and is one change after another.
func (a change) and(b change) change {
	return change{a.command + "\n" + b.command, a.words && b.words, func(d *Dump) error {
		if err := a.do(d); err != nil {
			return err
		}
		return b.do(d)
	}}
}

// with returns the configuration with changes.
func (c *Snapshot) with(changes ...change) (*Snapshot, error) {
	d := c.Dump
	d.Settings = maps.Clone(d.Settings)
	d.Links, d.Rules, d.Routes = slices.Clone(d.Links), slices.Clone(d.Rules), slices.Clone(d.Routes)
	d.NFT, d.Legacy, d.Sockets = slices.Clone(d.NFT), slices.Clone(d.Legacy), slices.Clone(d.Sockets)
	for _, x := range changes {
		if err := x.do(&d); err != nil {
			return nil, err
		}
	}
	return redecode(&d)
}

var errGone = errors.New("it is not in the configuration")

// spot is a place among the host's rules: a rule, or the end of a chain.
type spot struct {
	family, table, chain string
	legacy, iptables     bool
	handle               uint64 // of nf_tables
	number               int    // from 1; 0 is the end
}

func (c *Snapshot) spotOf(h Hop) spot {
	s := spot{family: h.Family, table: h.Table, chain: h.Chain, legacy: h.Legacy, handle: h.Handle, number: h.Number}
	for _, t := range c.Tables {
		if !h.Legacy && t.Family == h.Family && t.Name == h.Table {
			s.iptables = ofIptables(t)
		}
	}
	return s
}

// tools are the programs of iptables, by whether they are for IPv6.
var tools = map[bool]string{false: "iptables", true: "ip6tables"}

// tool is the program whose rules are there.
func (s spot) tool() string {
	t := tools[s.family == "ip6"]
	if s.legacy {
		t += "-legacy"
	}
	return t
}

func (s spot) hasMessage(m NetlinkMessage, kind uint16) (attrs, bool) {
	if m.Type != unix.NFNL_SUBSYS_NFTABLES<<8|kind || len(m.Data) < 4 || families[m.Data[0]] != s.family {
		return nil, false
	}
	all, err := split(m.Data, 4)
	return all, err == nil && text(all.get(1)) == s.table // NFTA_RULE_TABLE, NFTA_CHAIN_TABLE
}

// index is where the rule's message is in a dump.
func (s spot) index(d *Dump) (int, attrs) {
	for i, m := range d.NFT {
		if all, ok := s.hasMessage(m, unix.NFT_MSG_NEWRULE); ok && text(all.get(unix.NFTA_RULE_CHAIN)) == s.chain &&
			net64(all.get(unix.NFTA_RULE_HANDLE)) == s.handle {
			return i, all
		}
	}
	return -1, nil
}

// insert adds a rule before the spot.
func (s spot) insert(r added) change {
	r.IPv6 = r.IPv6 || s.family == "ip6"
	if s.legacy {
		where := fmt.Sprintf("-I %s %d", s.chain, s.number)
		if s.number == 0 {
			where = "-A " + s.chain
		}
		return change{command: fmt.Sprintf("%s -t %s %s %s", s.tool(), s.table, where, r.iptables()),
			do: func(d *Dump) error {
				return s.editLegacy(d, func(t *LegacyTable, x legacyRule) error {
					return t.insert(x.offset,
						r.legacy())
				})
			}}
	}
	x := change{do: func(d *Dump) error {
		m := ruleMessage(s.family, s.table, s.chain, r.exprs(s.family))
		if s.number == 0 {
			d.NFT = append(d.NFT, m)
			return nil
		}
		i, _ := s.index(d)
		if i < 0 {
			return errGone
		}
		d.NFT = slices.Insert(d.NFT, i, m)
		return nil
	}}
	switch {
	case s.iptables && s.number == 0:
		x.command = fmt.Sprintf("%s -t %s -A %s %s", s.tool(), s.table, s.chain, r.iptables())
	case s.iptables:
		x.command = fmt.Sprintf("%s -t %s -I %s %d %s", s.tool(), s.table, s.chain, s.number, r.iptables())
	case s.number == 0:
		x.command = fmt.Sprintf("nft add rule %s %s %s %s", s.family, s.table, s.chain, shellQuote(r.nft(s.family)))
	case s.number == 1:
		x.command = fmt.Sprintf("nft insert rule %s %s %s %s", s.family, s.table, s.chain, shellQuote(r.nft(s.family)))
	default:
		x.command = fmt.Sprintf("nft insert rule %s %s %s position %d %s", s.family, s.table, s.chain, s.handle,
			shellQuote(r.nft(s.family)))
	}
	return x
}

// shellQuote quotes what a shell would not leave alone.
func shellQuote(s string) string {
	if strings.ContainsAny(s, "\"!&|<>()$`*?[]{};~#'\\") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// remove takes a rule away; of a policy, it lets packets pass.
func (s spot) remove() change {
	switch {
	case s.legacy:
		command := fmt.Sprintf("%s -t %s -D %s %d", s.tool(), s.table, s.chain, s.number)
		return change{command: command, do: func(d *Dump) error {
			return s.editLegacy(d, func(t *LegacyTable, x legacyRule) error {
				// An entry that asks for a device of this name is met by no packet.
				at := xt.LayoutOf(t.IPv6)
				copy(x.entry[at.NICs:at.NICs+16], "\x01none")
				for i := range 16 {
					x.entry[at.NICs+32+i] = 0xff
				}
				x.entry[at.Inverted] &^= 1
				return nil
			})
		}}
	case s.number == 0:
		return change{do: func(d *Dump) error {
			for i, m := range d.NFT {
				if all, ok := s.hasMessage(m, unix.NFT_MSG_NEWCHAIN); ok &&
					text(all.get(unix.NFTA_CHAIN_NAME)) == s.chain {
					all = all.without(unix.NFTA_CHAIN_POLICY).with(unix.NFTA_CHAIN_POLICY, be32(1))
					d.NFT[i].Data = all.append(slices.Clone(m.Data[:4]))
					return nil
				}
			}
			return errGone
		}}
	}
	x := change{command: fmt.Sprintf("nft delete rule %s %s %s handle %d", s.family, s.table, s.chain, s.handle)}
	if s.iptables {
		x.command = fmt.Sprintf("%s -t %s -D %s %d", s.tool(), s.table, s.chain, s.number)
	}
	x.do = func(d *Dump) error {
		i, _ := s.index(d)
		if i < 0 {
			return errGone
		}
		d.NFT = slices.Delete(d.NFT, i, i+1)
		return nil
	}
	return x
}

// rewrite replaces a rule's expressions. to is its text afterwards, in its tool's syntax.
func (s spot) rewrite(to string, edit func(exprs attrs) (attrs, error)) change {
	x := change{command: fmt.Sprintf("nft replace rule %s %s %s handle %d %s", s.family, s.table, s.chain, s.handle,
		shellQuote(to))}
	if s.iptables {
		x.command = fmt.Sprintf("%s -t %s -R %s %d %s", s.tool(), s.table, s.chain, s.number, to)
	}
	x.do = func(d *Dump) error {
		i, all := s.index(d)
		if i < 0 {
			return errGone
		}
		exprs, err := split(bytes.Clone(all.get(unix.NFTA_RULE_EXPRESSIONS)), 0)
		if err != nil {
			return err
		}
		if exprs, err = edit(exprs); err != nil {
			return err
		}
		var some attrs
		for _, a := range all {
			if a.kind() == unix.NFTA_RULE_EXPRESSIONS {
				a.data = exprs.bytes()
			}
			some = append(some, a)
		}
		d.NFT[i].Data = some.append(slices.Clone(d.NFT[i].Data[:4]))
		return nil
	}
	return x
}

// xtData returns the data of a match or target of a rule's expressions. It may be written to.
func xtData(exprs attrs, name string) []byte {
	for _, e := range exprs {
		if n := (nested{e.data}).get(unix.NFTA_EXPR_DATA); n.get(1).text() == name {
			return n.get(3).b
		}
	}
	return nil
}

// editLegacy edits the table that the spot is in, at its rule.
func (s spot) editLegacy(d *Dump, edit func(*LegacyTable, legacyRule) error) error {
	for i, t := range d.Legacy {
		if t.IPv6 != (s.family == "ip6") || t.Name != s.table {
			continue
		}
		t.Info, t.Entries = bytes.Clone(t.Info), bytes.Clone(t.Entries)
		all, err := t.rules()
		if err != nil {
			return err
		}
		for _, r := range all {
			end := r.policy || r.tail
			if r.chain != s.chain || r.head || s.number != r.number && !(s.number == 0 && end) {
				continue
			}
			if err := edit(&t, r); err != nil {
				return err
			}
			d.Legacy[i] = t
			return nil
		}
	}
	return errGone
}

// insert puts an entry before the one at an offset. Offsets behind it move: those of jumps, of the
// chains' beginnings and of their ends.
func (t *LegacyTable) insert(offset int, entry []byte) error {
	all, err := t.rules()
	if err != nil {
		return err
	}
	n := len(entry)
	for _, r := range all {
		at := r.target + xt.Head
		if r.targetName() != "" || r.head {
			continue
		}
		if v := int(int32(cstruct(r.entry).u32(at))); v > offset {
			put32(r.entry, at, uint32(v+n))
		}
	}
	for i := range nfHooks {
		if cstruct(t.Info).u32(32)&(1<<i) == 0 {
			continue
		}
		if v := int(cstruct(t.Info).u32(infoHooks + 4*i)); v > offset {
			put32(t.Info, infoHooks+4*i, uint32(v+n))
		}
		if v := int(cstruct(t.Info).u32(infoUnder + 4*i)); v >= offset {
			put32(t.Info, infoUnder+4*i, uint32(v+n))
		}
	}
	put32(t.Info, 76, cstruct(t.Info).u32(76)+1) // num_entries, size
	put32(t.Info, 80, cstruct(t.Info).u32(80)+uint32(n))
	t.Entries = slices.Insert(t.Entries, offset, entry...)
	return nil
}

// writeSysctl writes a file below /proc/sys/net.
func writeSysctl(name, value string) change {
	return change{command: fmt.Sprintf("sysctl -w %s=%s", dotted(name), value), do: func(d *Dump) error {
		parts := strings.Split(name, "/")
		if len(parts) != 4 || parts[2] == "all" || parts[2] == "default" {
			d.Settings[name] = value
			return nil
		}
		return d.editConf4(parts[2], parts[3], value)
	}}
}

// dotted is a setting's name as sysctl(8) takes it.
func dotted(name string) string {
	if strings.Contains(name, ".") { // the name of a device has dots of its own
		return "net/" + name
	}
	return "net." + strings.ReplaceAll(name, "/", ".")
}

// conf4Place is where a setting of IPv4 is in a device's message.
func conf4Place(m []byte, name string) []byte {
	all, err := split(m, unix.SizeofIfInfomsg)
	if err != nil {
		return nil
	}
	conf := ipv4Conf(all)
	for id, s := range conf4 {
		if s == name && len(conf) >= 4*id {
			return conf[4*id-4 : 4*id]
		}
	}
	return nil
}

func linkName(m []byte) string {
	all, _ := split(m, min(unix.SizeofIfInfomsg, len(m)))
	return text(all.get(unix.IFLA_IFNAME))
}

func (d *Dump) editConf4(device, name, value string) error {
	for i, m := range d.Links {
		if linkName(m) != device {
			continue
		}
		m = bytes.Clone(m)
		place := conf4Place(m, name)
		if place == nil {
			break
		}
		var n uint32
		if _, err := fmt.Sscan(value, &n); err != nil {
			return err
		}
		binary.NativeEndian.PutUint32(place, n)
		d.Links[i] = m
		return nil
	}
	return errGone
}

// bridgeOption is the value of one of a bridge's attributes (IFLA_BR_), empty where it has none. It
// may be written to.
func bridgeOption(m []byte, kind uint16) []byte {
	all, err := split(m, unix.SizeofIfInfomsg)
	if err != nil {
		return nil
	}
	return nested{all.get(unix.IFLA_LINKINFO)}.get(unix.IFLA_INFO_DATA).get(kind).b
}

// callOption is the name and the number of the option that has a bridge's packets go through the
// rules of IP (IFLA_BR_NF_CALL_IPTABLES, _IP6TABLES).
func callOption(ipv6 bool) (string, uint16) {
	if ipv6 {
		return "nf_call_ip6tables", 37
	}
	return "nf_call_iptables", 36
}

// callsIptables reports whether a bridge has its packets go through the rules of IP.
func (c *Snapshot) callsIptables(bridge string, ipv6 bool) bool {
	_, kind := callOption(ipv6)
	return slices.ContainsFunc(c.Dump.Links, func(m []byte) bool {
		return linkName(m) == bridge && bytes.Equal(bridgeOption(m, kind), []byte{1})
	})
}

// callIptables has one bridge's packets go through the rules of IP, or not.
func callIptables(bridge string, ipv6 bool, call byte) change {
	option, kind := callOption(ipv6)
	command := fmt.Sprintf("ip link set %s type bridge %s %d", bridge, option, call)
	return change{command: command, do: func(d *Dump) error {
		for i, m := range d.Links {
			m = bytes.Clone(m)
			if value := bridgeOption(m, kind); linkName(m) == bridge && len(value) == 1 {
				value[0] = call
				d.Links[i] = m
				return nil
			}
		}
		return errGone
	}}
}

// conf4Of is a device's own setting of IPv4.
func (c *Snapshot) conf4Of(device, name string) uint32 {
	for _, m := range c.Dump.Links {
		if linkName(m) == device {
			return host32(conf4Place(m, name))
		}
	}
	return 0
}

// ruleWords writes a policy rule as ip-rule(8) takes it.
func (r PolicyRule) words() string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if r.Invert {
		say("not")
	}
	if r.Src.IsValid() && r.Src.Bits() > 0 {
		say("from %v", r.Src)
	}
	if r.Dst.IsValid() && r.Dst.Bits() > 0 {
		say("to %v", r.Dst)
	}
	if r.Mask != 0 || r.Mark != 0 {
		if r.Mask == 0xffffffff {
			say("fwmark 0x%x", r.Mark)
		} else {
			say("fwmark 0x%x/0x%x", r.Mark, r.Mask)
		}
	}
	if r.In != "" {
		say("iif %s", r.In)
	}
	if r.Out != "" {
		say("oif %s", r.Out)
	}
	if r.HasUIDs {
		say("uidrange %d-%d", r.UIDFirst, r.UIDLast)
	}
	if r.Proto != 0 {
		say("ipproto %s", protoName(r.Proto))
	}
	if r.Action <= unix.FR_ACT_TO_TBL {
		say("lookup %s", tableName(r.Table))
	} else {
		say("%s", map[uint8]string{2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}[r.Action])
	}
	return strings.Join(all, " ")
}

// policyWords writes a policy rule of the host with its ports, which PolicyRule has not.
func (c *Snapshot) policyWords(i int) string {
	words := c.PolicyRules[i].words()
	all, err := split(c.Dump.Rules[i], unix.SizeofRtMsg)
	if err != nil {
		return words
	}
	for _, p := range []struct {
		kind uint16
		name string
	}{{unix.FRA_SPORT_RANGE, "sport"}, {unix.FRA_DPORT_RANGE, "dport"}} {
		if r := all.get(p.kind); len(r) == 4 { // two u16
			text := fmt.Sprintf("%s %d", p.name, host32(r[:2]))
			if host32(r[2:]) != host32(r[:2]) {
				text += fmt.Sprintf("-%d", host32(r[2:]))
			}
			words = strings.Replace(words, "lookup", text+" lookup", 1)
		}
	}
	return words
}

func tableName(n uint32) string {
	if name := map[uint32]string{253: "default", 254: "main", 255: "local"}[n]; name != "" {
		return name
	}
	return fmt.Sprint(n)
}

func ipCommand(ipv6 bool) string { return map[bool]string{false: "ip", true: "ip -6"}[ipv6] }

// removePolicyRule deletes a rule of ip-rule(8), by its place in the dump.
func (c *Snapshot) removePolicyRule(i int) change {
	r, m := c.PolicyRules[i], c.Dump.Rules[i]
	return change{command: fmt.Sprintf("%s rule del pref %d %s", ipCommand(r.IPv6), r.Priority, c.policyWords(i)),
		do: func(d *Dump) error {
			for k, x := range d.Rules {
				if bytes.Equal(x, m) {
					d.Rules = slices.Delete(d.Rules, k, k+1)
					return nil
				}
			}
			return errGone
		}}
}

// addPolicyRule adds one for a mark.
func addPolicyRule(r PolicyRule) change {
	return change{command: fmt.Sprintf("%s rule add pref %d %s", ipCommand(r.IPv6), r.Priority, r.words()),
		do: func(d *Dump) error {
			// struct fib_rule_hdr
			b := []byte{familyOf(r.IPv6), 0, 0, 0, byte(r.Table & 0xff), 0, 0, unix.FR_ACT_TO_TBL, 0, 0, 0, 0}
			if r.Table > 255 {
				b[4] = unix.RT_TABLE_COMPAT
			}
			all := attrs{
				{unix.FRA_PRIORITY, native(r.Priority)}, {unix.FRA_TABLE, native(r.Table)},
				{unix.FRA_FWMARK, native(r.Mark)}, {unix.FRA_FWMASK, native(r.Mask)},
			}
			if r.In != "" {
				all = all.with(unix.FRA_IIFNAME, zero(r.In))
			}
			if r.Proto != 0 {
				all = all.with(unix.FRA_IP_PROTO, []byte{r.Proto})
			}
			if r.Src.IsValid() && r.Src.Bits() > 0 {
				b[2] = byte(r.Src.Bits())
				all = all.with(unix.FRA_SRC, r.Src.Addr().AsSlice())
			}
			if r.Dst.IsValid() {
				b[1] = byte(r.Dst.Bits())
				all = all.with(unix.FRA_DST, r.Dst.Addr().AsSlice())
			}
			d.Rules = append(d.Rules, all.append(b))
			return nil
		}}
}

// addLocalRoute makes all destinations local in a table.
func addLocalRoute(table uint32, ipv6 bool) change {
	scope := byte(unix.RT_SCOPE_HOST)
	if ipv6 {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	return addDefault(fmt.Sprintf("local default dev lo table %d", table), unix.RTN_LOCAL, scope, table, 0, ipv6)
}

// addRouteToLo gives a family a default route that leads nowhere, after all others.
func addRouteToLo(ipv6 bool) change {
	const metric = 4096
	scope := byte(unix.RT_SCOPE_LINK)
	if ipv6 {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	return addDefault(fmt.Sprintf("default dev lo metric %d", metric), unix.RTN_UNICAST, scope, unix.RT_TABLE_MAIN,
		metric, ipv6)
}

// addDefault adds a default route by lo.
func addDefault(words string, kind, scope byte, table, metric uint32, ipv6 bool) change {
	return change{command: ipCommand(ipv6) + " route add " + words, do: func(d *Dump) error {
		short := byte(table)
		if table > 255 {
			short = unix.RT_TABLE_COMPAT
		}
		// struct rtmsg
		b := []byte{familyOf(ipv6), 0, 0, 0, short, unix.RTPROT_BOOT, scope, kind, 0, 0, 0, 0}
		all := attrs{{unix.RTA_TABLE, native(table)}, {unix.RTA_OIF, native(1)}}
		if metric != 0 {
			all = all.with(unix.RTA_PRIORITY, native(metric))
		}
		route := all.append(b)
		if !slices.ContainsFunc(d.Routes, func(x []byte) bool { return bytes.Equal(x, route) }) {
			d.Routes = append(d.Routes, route)
		}
		return nil
	}}
}

// editSocket changes a listener of the host.
func editSocket(i int, words string, edit func(*BoundSocket)) change {
	return change{command: words, words: true, do: func(d *Dump) error {
		if i >= len(d.Sockets) {
			return errGone
		}
		edit(&d.Sockets[i])
		return nil
	}}
}

// addSocket starts a listener.
func addSocket(s BoundSocket, words string) change {
	return change{command: words, words: true, do: func(d *Dump) error {
		d.Sockets = append(d.Sockets, s)
		return nil
	}}
}

// anyAddr is 0.0.0.0 or ::.
func anyAddr(ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
