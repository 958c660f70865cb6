package xt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Table is a table of iptables-legacy or ip6tables-legacy, taken apart so that chains can be added
// and removed. The rules of other programs are kept as they came.
type Table struct {
	IPv6   bool
	Name   string
	Chains []Chain
	// old is how many entries there were, and told those of them that have comments.
	old  uint32
	told []Told
}

// Told is an entry with a comment, as it was when the table was read.
type Told struct {
	Chain, Comment string
	Packets        uint64
	Entry          []byte // struct ipt_entry with matches and target
	place          int
}

// Chain is one of a table's: of Hooks, or a user's.
type Chain struct {
	Name  string
	Hook  int // index in Hooks, -1 of a user's chain
	Rules []Entry
}

// Entry is a rule as the kernel has it. The last one of a chain is its policy, or returns.
type Entry struct {
	data []byte // struct ipt_entry with matches and target
	old  int    // its place among the entries that there were, from 1; 0 for a new one
	jump string // the chain to which it leads
	next bool   // it leads to the rule behind it
}

// Hooks are the chains of hooks, by NF_INET_*.
var Hooks = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// Info is what a table's head says of its entries: struct ipt_getinfo, and the same in ipt_replace.
type Info struct {
	Hooks             uint32 // bits of those that the table has
	Begin, End        [5]uint32
	Number, EntrySize uint32
}

// errCut is the error of a table that is not as the kernel writes one.
var errCut = errors.New("an entry is cut or leads nowhere")

// Parse takes a table apart.
func Parse(name string, ipv6 bool, info Info, entries []byte) (*Table, error) {
	t, at := &Table{IPv6: ipv6, Name: name, old: info.Number}, LayoutOf(ipv6)
	place := 0
	begins := map[int]string{} // the offset of each chain's first rule
	type lead struct{ chain, rule, to int }
	var leads []lead
	for offset := 0; offset < len(entries); {
		e := entries[offset:]
		if len(e) < at.Size {
			return nil, errCut
		}
		target, next := int(binary.NativeEndian.Uint16(e[at.Target:])), int(binary.NativeEndian.Uint16(e[at.Target+2:]))
		if target < at.Size || next < target+Head || next > len(e) {
			return nil, errCut
		}
		e = slices.Clone(e[:next])
		place++
		for hook, name := range Hooks {
			if info.Hooks&(1<<hook) != 0 && int(info.Begin[hook]) == offset {
				t.Chains = append(t.Chains, Chain{Name: name, Hook: hook})
				begins[offset] = name
			}
		}
		switch kind := text(e[target+2 : target+31]); {
		case kind == errorTarget && offset+next == len(entries):
			offset += next
			continue
		case kind == errorTarget:
			name := text(e[target+Head:])
			t.Chains = append(t.Chains, Chain{Name: name, Hook: -1})
			begins[offset+next] = name
			offset += next
			continue
		case len(t.Chains) == 0, kind == "" && next < target+Head+4:
			return nil, errCut
		default:
			c := &t.Chains[len(t.Chains)-1]
			entry := Entry{data: e, old: place}
			if kind == "" {
				verdict := int(int32(binary.NativeEndian.Uint32(e[target+Head:])))
				entry.next = verdict == offset+next
				if verdict >= 0 && !entry.next {
					leads = append(leads, lead{len(t.Chains) - 1, len(c.Rules), verdict})
				}
			}
			c.Rules = append(c.Rules, entry)
			if comment := entry.comment(at); comment != "" {
				t.told = append(t.told, Told{c.Name, comment, binary.NativeEndian.Uint64(e[at.Counters:]), e, place})
			}
		}
		offset += next
	}
	for _, l := range leads {
		name, ok := begins[l.to]
		if !ok {
			return nil, errCut
		}
		t.Chains[l.chain].Rules[l.rule].jump = name
	}
	if slices.ContainsFunc(t.Chains, func(c Chain) bool { return len(c.Rules) == 0 }) {
		return nil, errCut
	}
	return t, nil
}

// text is what is before a NUL.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// errorTarget is the target of the entry that begins a user's chain, with the chain's name, and of
// the table's last one (XT_ERROR_TARGET).
const errorTarget = "ERROR"

// errorSize is XT_FUNCTION_MAXNAMELEN, the size of that name.
const errorSize = 30

// Encode puts the table together.
func (t *Table) Encode() (info Info, entries []byte, err error) {
	at := LayoutOf(t.IPv6)
	begins := map[string]int{}
	type lead struct {
		at int // of the verdict
		to string
	}
	var leads []lead
	for _, c := range t.Chains {
		if c.Hook < 0 {
			entries = append(entries, t.errorEntry(c.Name)...)
			info.Number++
		} else {
			info.Hooks |= 1 << c.Hook
			info.Begin[c.Hook] = uint32(len(entries))
		}
		begins[c.Name] = len(entries)
		for i, e := range c.Rules {
			if c.Hook >= 0 && i == len(c.Rules)-1 {
				info.End[c.Hook] = uint32(len(entries))
			}
			verdict := len(entries) + int(binary.NativeEndian.Uint16(e.data[at.Target:])) + Head
			entries = append(entries, e.data...)
			info.Number++
			switch {
			case e.jump != "":
				leads = append(leads, lead{verdict, e.jump})
			case e.next:
				binary.NativeEndian.PutUint32(entries[verdict:], uint32(len(entries)))
			}
		}
	}
	for _, l := range leads {
		to, ok := begins[l.to]
		if !ok {
			return info, nil, fmt.Errorf("a rule of table %s leads to chain %s, which is not there", t.Name, l.to)
		}
		binary.NativeEndian.PutUint32(entries[l.at:], uint32(to))
	}
	entries = append(entries, t.errorEntry(errorTarget)...)
	info.Number++
	info.EntrySize = uint32(len(entries))
	return info, entries, nil
}

// errorEntry begins a user's chain, or ends the table.
func (t *Table) errorEntry(name string) []byte {
	data := make([]byte, errorSize)
	copy(data[:errorSize-1], name)
	return t.entry(Rule{}, Extension{Name: errorTarget, Data: data})
}

// entry is a rule with the target.
func (t *Table) entry(r Rule, target Extension) []byte {
	at := LayoutOf(t.IPv6)
	b := make([]byte, at.Size)
	for i, a := range [][]byte{r.From.AsSlice(), r.To.AsSlice()} {
		copy(b[i*at.Address:], a)
		for k := range a {
			b[(2+i)*at.Address+k] = 0xff
		}
	}
	if r.In != "" {
		copy(b[at.NICs:at.NICs+15], r.In)
		for i := range min(len(r.In)+1, 16) {
			b[at.NICs+32+i] = 0xff
		}
	}
	if r.Proto != 0 {
		binary.NativeEndian.PutUint16(b[at.Proto:], uint16(r.Proto))
		if t.IPv6 {
			b[at.Flags] = 1 // IP6T_F_PROTO
		}
	}
	for _, m := range r.Matches {
		b = append(b, m.Bytes()...)
	}
	binary.NativeEndian.PutUint16(b[at.Target:], uint16(len(b)))
	b = append(b, target.Bytes()...)
	binary.NativeEndian.PutUint16(b[at.Target+2:], uint16(len(b)))
	return b
}

// Chain returns a user's chain, which is made when it is not there. It is valid until another one
// is made.
func (t *Table) Chain(name string) *Chain {
	i := slices.IndexFunc(t.Chains, func(c Chain) bool { return c.Name == name })
	if i < 0 {
		i = len(t.Chains)
		t.Chains = append(t.Chains, Chain{Name: name, Hook: -1, Rules: []Entry{t.Entry(Rule{Verdict: Return})}})
	}
	return &t.Chains[i]
}

// Add puts the rule behind the others of a user's chain.
func (t *Table) Add(chain string, r Rule) {
	c := t.Chain(chain)
	c.Rules = slices.Insert(c.Rules, len(c.Rules)-1, t.Entry(r))
}

// Insert puts the rule before the others of a chain of Hooks.
func (t *Table) Insert(hook string, r Rule) error {
	i := slices.IndexFunc(t.Chains, func(c Chain) bool { return c.Name == hook && c.Hook >= 0 })
	if i < 0 {
		return fmt.Errorf("table %s has no chain %s", t.Name, hook)
	}
	t.Chains[i].Rules = slices.Insert(t.Chains[i].Rules, 0, t.Entry(r))
	return nil
}

// Entry is a rule as the kernel has it.
func (t *Table) Entry(r Rule) Entry {
	target := r.Target
	if target.Name == "" {
		target.Data = words(uint32(r.Verdict))
	}
	return Entry{data: t.entry(r, target), jump: r.Jump, next: r.Jump == "" && target.Name == "" && r.Verdict == Next}
}

// Remove removes the user's chains whose names begin with the prefix, and the rules of others that
// lead to them, if any. It returns how many rules of others are left.
func (t *Table) Remove(prefix string) (any bool, left int) {
	own := func(name string) bool {
		there := strings.HasPrefix(name, prefix)
		any = any || there
		return there
	}
	t.Chains = slices.DeleteFunc(t.Chains, func(c Chain) bool { return c.Hook < 0 && own(c.Name) })
	for i := range t.Chains {
		c := &t.Chains[i]
		c.Rules = slices.DeleteFunc(c.Rules, func(e Entry) bool { return own(e.jump) })
		left += len(c.Rules) - 1
	}
	return any, left
}

// Told returns the entries with comments of chains whose names begin with the prefix.
func (t *Table) Told(prefix string) []Told {
	return slices.DeleteFunc(slices.Clone(t.told), func(c Told) bool { return !strings.HasPrefix(c.Chain, prefix) })
}

// Packets returns what those entries had counted, by their comments.
func (t *Table) Packets(prefix string) map[string]uint64 {
	all := map[string]uint64{}
	for _, c := range t.Told(prefix) {
		all[c.Comment] = c.Packets
	}
	return all
}

// comment is the rule's.
func (e Entry) comment(at Layout) string {
	comment := ""
	eachMatch(e.data, at, func(name string, data []byte) {
		if name == "comment" {
			comment = text(data)
		}
	})
	return comment
}

// eachMatch calls take with the name and the struct of each match of an entry.
func eachMatch(entry []byte, at Layout, take func(name string, data []byte)) {
	target := int(binary.NativeEndian.Uint16(entry[at.Target:]))
	for b := entry[at.Size:target]; len(b) >= Head; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < Head || size > len(b) {
			return
		}
		take(text(b[2:31]), b[Head:size])
		b = b[size:]
	}
}

// Flow returns what the entry asks of a packet itself: the protocol's number, the addresses, and
// the ports, 0 for any.
func (c Told) Flow(ipv6 bool) (proto int, from, to netip.Addr, fromPort, toPort uint16) {
	at := LayoutOf(ipv6)
	from, _ = netip.AddrFromSlice(c.Entry[:at.Address])
	to, _ = netip.AddrFromSlice(c.Entry[at.Address : 2*at.Address])
	eachMatch(c.Entry, at, func(name string, data []byte) {
		if f, t, ok := PortsOf(name, data); ok {
			fromPort, toPort = f, t
		}
	})
	return int(binary.NativeEndian.Uint16(c.Entry[at.Proto:])), from, to, fromPort, toPort
}
