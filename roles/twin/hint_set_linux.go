package twin

import (
	"bytes"
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// lookup reads a set's elements: a condition for each part of the key, and for a verdict map a rule
// for each element.
func (p *hinter) lookup(n nested) {
	set := p.sets[n.get(unix.NFTA_LOOKUP_SET).text()]
	if set == nil {
		return
	}
	first := reg(n.numberOf(unix.NFTA_LOOKUP_SREG))
	not := n.numberOf(unix.NFTA_LOOKUP_FLAGS)&unix.NFT_LOOKUP_F_INV != 0
	to := n.get(unix.NFTA_LOOKUP_DREG)
	elements := intervals(set)
	isVerdict := len(to.b) > 0 && to.number() == unix.NFT_REG_VERDICT
	// conditions are those of an element, or of all.
	conditions := func(some []interval) []ask {
		var all []ask
		for at := 0; at < int(max(set.KeyLen, 1)); {
			s, ok := p.regs[first+uint32(at)/4]
			if !ok || s.size == 0 {
				break
			}
			var keys [][2][]byte
			for _, e := range some {
				if at+s.size <= len(e.low) && at+s.size <= len(e.high) {
					keys = append(keys, [2][]byte{e.low[at : at+s.size], e.high[at : at+s.size]})
				}
			}
			all = append(all, p.condition(s, not, keys))
			at += max((s.size+3)/4*4, 4)
		}
		return all
	}
	if !isVerdict {
		p.hint.asks = append(p.hint.asks, conditions(elements)...)
		if len(to.b) > 0 { // a map: the first values stand for it
			var s register
			for _, e := range elements {
				if v := (nested{e.data}).get(unix.NFTA_DATA_VALUE).b; s.value == nil && v != nil {
					s.value = v
				}
			}
			p.regs[reg(to.number())] = s
		}
		return
	}
	for _, e := range elements[:min(len(elements), 256)] {
		x := *p.hint
		x.asks = append(slices.Clip(slices.Clone(p.hint.asks)), conditions([]interval{e})...)
		x.verdict(nested{e.data}.get(unix.NFTA_DATA_VERDICT))
		p.more = append(p.more, &x)
	}
}

// interval is an element of a set, with both its ends.
type interval struct{ low, high, data []byte }

// intervals joins the beginnings and the ends of a set's elements.
func intervals(s *Set) []interval {
	elements := s.Elements[:min(len(s.Elements), 2*maxSpans)]
	var all []interval
	if !slices.ContainsFunc(elements, func(e Element) bool { return e.End }) {
		for _, e := range elements {
			high := e.Key
			if e.KeyEnd != nil {
				high = e.KeyEnd
			}
			if e.Key != nil {
				all = append(all, interval{e.Key, high, e.Data})
			}
		}
		return all
	}
	elements = slices.Clone(elements)
	sortStable(elements, func(a, b Element) int {
		order := map[bool]int{true: 0, false: 1}
		return cmp.Or(bytes.Compare(a.Key, b.Key), order[a.End]-order[b.End])
	})
	for i, e := range elements {
		if e.End || e.Key == nil {
			continue
		}
		high := bytes.Repeat([]byte{0xff}, len(e.Key))
		if i+1 < len(elements) {
			high = minus1(elements[i+1].Key)
		}
		all = append(all, interval{e.Key, high, e.Data})
	}
	return all
}
