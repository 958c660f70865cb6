package twin

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"pfdivert/pfconf/xt"
)

// legacyRule is an entry of a table of iptables-legacy.
type legacyRule struct {
	offset int // in the table's entries
	entry  []byte
	target int    // offset of its target in entry
	chain  string // that it is in
	hook   string // of the chain: PREROUTING, …; "" for one of the user's
	number int    // in its chain, from 1
	policy bool   // the last one of a base chain
	head   bool   // the first one of a chain of the user's, of which it has the name
	tail   bool   // the last one of a chain of the user's, which returns
	jump   int    // the offset of the first rule of the chain that it leads to, -1 for none
}

// Verdicts of linux/netfilter/x_tables.h, and offsets in a struct ipt_getinfo.
const (
	xtDrop    = -1 // -NF_DROP - 1
	xtAccept  = -2
	xtReturn  = -5
	nfHooks   = 5
	infoHooks = 36 // hook_entry of struct ipt_getinfo
	infoUnder = 56
)

// rules returns the entries of the table in their order. A table that is cut is an error.
func (t LegacyTable) rules() ([]legacyRule, error) {
	at, info := xt.LayoutOf(t.IPv6), cstruct(t.Info)
	begins, ends := map[int]string{}, map[int]bool{}
	for i, name := range xt.Hooks {
		if info.u32(32)&(1<<i) != 0 {
			begins[int(info.u32(infoHooks+4*i))] = name
			ends[int(info.u32(infoUnder+4*i))] = true
		}
	}
	var all []legacyRule
	chain, hook, number := "", "", 0
	for offset := 0; offset < len(t.Entries); {
		e := cstruct(t.Entries[offset:])
		if len(e) < at.Size {
			return nil, fmt.Errorf("table %s: the entry at %d is cut", t.Name, offset)
		}
		target, next := int(e.u16(at.Target)), int(e.u16(at.Target+2))
		if target < at.Size || next < target+xt.Head || next > len(e) {
			return nil, fmt.Errorf("table %s: the entry at %d is cut", t.Name, offset)
		}
		if name := begins[offset]; name != "" {
			chain, hook, number = name, name, 0
		}
		r := legacyRule{offset: offset, entry: e[:next:next], target: target, jump: -1}
		name := r.targetName()
		if name == "ERROR" {
			r.head = true
			chain, hook, number = cstruct(r.data()).text(0, 30), "", 0
			if offset+next == len(t.Entries) {
				chain = "" // the table's end
			}
		} else {
			number++
			verdict := int(int32(cstruct(r.data()).u32(0)))
			r.policy = hook != "" && ends[offset] && name == ""
			if name == "" && verdict >= 0 && verdict != offset+next {
				r.jump = verdict
			}
		}
		r.chain, r.hook, r.number = chain, hook, number
		all = append(all, r)
		offset += next
	}
	for i := range all {
		last := i+1 == len(all) || all[i+1].head
		r := &all[i]
		r.tail = last && !r.head && r.hook == "" && r.targetName() == "" && r.jump < 0 &&
			int32(cstruct(r.data()).u32(0)) == xtReturn
	}
	return all, nil
}

func (r legacyRule) targetName() string { return cstruct(r.entry).text(r.target+2, 29) }

func (r legacyRule) data() []byte { return r.entry[r.target+xt.Head:] }

// legacyText writes the rules of a table as iptables-save does, without "-A CHAIN"; of a policy
// "policy drop".
func (w *writer) legacyText(t LegacyTable, all []legacyRule, r legacyRule) string {
	verdict := int(int32(cstruct(r.data()).u32(0)))
	if r.policy {
		return "policy " + map[bool]string{false: "accept", true: "drop"}[verdict == xtDrop]
	}
	at := xt.LayoutOf(t.IPv6)
	parts := entryText(r.entry, at, t.IPv6)
	for m := at.Size; m+xt.Head <= r.target; {
		e := cstruct(r.entry)
		size := int(e.u16(m))
		if size < xt.Head || m+size > r.target {
			break
		}
		name, data := e.text(m+2, 29), r.entry[m+xt.Head:m+size]
		if name == "set" {
			parts = append(parts, w.setMatch(data))
		} else {
			text, ok := xtMatch(name, e.u8(m+31), data)
			w.abridged = w.abridged || !ok
			parts = append(parts, text)
		}
		m += size
	}
	switch name := r.targetName(); {
	case name != "":
		text, ok := xtTarget(name, cstruct(r.entry).u8(r.target+31), r.data(), t.IPv6)
		w.abridged = w.abridged || !ok
		parts = append(parts, text)
	case r.jump >= 0:
		word := "-j "
		// IPT_F_GOTO, IP6T_F_GOTO
		if flags := cstruct(r.entry).u8(at.Flags); flags&2 != 0 && !t.IPv6 || flags&4 != 0 && t.IPv6 {
			word = "-g "
		}
		for _, o := range all {
			if o.offset == r.jump {
				parts = append(parts, word+o.chain)
			}
		}
	case verdict == xtDrop:
		parts = append(parts, "-j DROP")
	case verdict == xtAccept:
		parts = append(parts, "-j ACCEPT")
	case verdict == xtReturn:
		parts = append(parts, "-j RETURN")
	}
	return strings.Join(parts, " ")
}

// EntryText returns the text of a rule in a table of iptables-legacy, with its matches and target
// (struct ipt_entry), which leads to no other chain.
func EntryText(entry []byte, ipv6 bool) string {
	r := legacyRule{entry: entry, target: int(cstruct(entry).u16(xt.LayoutOf(ipv6).Target)), jump: -1}
	return newWriter(&Snapshot{}).legacyText(LegacyTable{IPv6: ipv6}, nil, r)
}

// entryText writes what an entry asks for itself: struct ipt_ip and ip6t_ip6.
func entryText(e cstruct, at xt.Layout, six bool) []string {
	var all []string
	inverted := e.u8(at.Inverted)
	for i, option := range []string{"-s", "-d"} {
		bits, prefix := ones(e[(2+i)*at.Address : (3+i)*at.Address])
		if bits == 0 && prefix {
			continue
		}
		all = append(all, fmt.Sprintf("%s%s %v", bang(inverted&(8<<i) != 0), option,
			netip.PrefixFrom(e.addr(i*at.Address, six), bits)))
	}
	for i, option := range []string{"-i", "-o"} {
		name, asked := e.text(at.NICs+16*i, 16), 0
		for asked < 16 && e.u8(at.NICs+32+16*i+asked) != 0 {
			asked++
		}
		if asked == 0 {
			continue
		}
		if asked <= len(name) {
			name = name[:asked] + "+"
		}
		all = append(all, bang(inverted&(1<<i) != 0)+option+" "+name)
	}
	if proto := e.u16(at.Proto); proto != 0 {
		all = append(all, bang(inverted&0x40 != 0)+"-p "+protoName(byte(proto)))
	}
	if e.u8(at.Flags)&1 != 0 && !six {
		all = append(all, bang(inverted&0x20 != 0)+"-f")
	}
	return all
}

// put16 and put32 overwrite a number in the machine's order.
func put16(b []byte, at int, v uint16) { binary.NativeEndian.PutUint16(b[at:], v) }

func put32(b []byte, at int, v uint32) { binary.NativeEndian.PutUint32(b[at:], v) }
