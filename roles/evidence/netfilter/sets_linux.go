package netfilter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// element is one of a set: a key, or the beginning of an interval, or its end, which is not in it.
type element struct {
	key, keyEnd []byte
	end         bool
	data        []byte
	action      *Action
}

const keyEnd = 10 // NFTA_SET_ELEM_KEY_END

func parseElement(n nested) element {
	e := element{key: n.get(unix.NFTA_SET_ELEM_KEY).get(unix.NFTA_DATA_VALUE).b, keyEnd: n.get(keyEnd).get(unix.NFTA_DATA_VALUE).b}
	e.end = n.get(unix.NFTA_SET_ELEM_FLAGS).number()&unix.NFT_SET_ELEM_INTERVAL_END != 0
	data := n.get(unix.NFTA_SET_ELEM_DATA)
	e.data = data.get(unix.NFTA_DATA_VALUE).b
	if v := data.get(unix.NFTA_DATA_VERDICT); len(v.b) > 0 {
		a := verdict(v)
		e.action = &a
	}
	return e
}

func (r *ruleReader) lookup(n nested) error {
	name := n.get(unix.NFTA_LOOKUP_SET).text()
	source := n.get(unix.NFTA_LOOKUP_SREG).number()
	v := r.get(source)
	not := n.get(unix.NFTA_LOOKUP_FLAGS).number()&unix.NFT_LOOKUP_F_INV != 0
	to := n.get(unix.NFTA_LOOKUP_DREG)
	isVerdict := len(to.b) > 0 && to.number() == unix.NFT_REG_VERDICT
	// A set of addresses that has a name can be a country's.
	var list []element
	if isVerdict || v.field != Src && v.field != Dst && v.field != Packet || strings.HasPrefix(name, "__") {
		var err error
		if list, err = r.elements(name); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	// Keys that are longer than the value are of several values.
	if slices.ContainsFunc(list, func(e element) bool { return len(e.key) > (v.size+3)/4*4 }) {
		v = value{field: Packet, name: v.name + " …", size: v.size}
	}
	c := v.cond(intervals(list, v.size), not)
	if !strings.HasPrefix(name, "__") { // else its elements are the text
		if c.Text = v.name + " @" + name; not {
			c.Text = v.name + " != @" + name
		}
	}
	switch {
	case len(to.b) == 0:
		r.ask(c)
	case isVerdict:
		var all []Chosen
		for _, i := range intervalsOf(list, v.size) {
			one := v.cond([]interval{i.interval}, false)
			if i.action == nil {
				continue
			}
			if v.field == Packet {
				one.Text = fmt.Sprintf("%s %x", v.name, i.from)
			}
			all = append(all, Chosen{one, *i.action})
		}
		r.rule.Steps = append(r.rule.Steps, Step{Choice: all})
	default: // what has no element leaves the rule
		r.ask(c)
		var out value
		for _, e := range list {
			if !e.end && e.data != nil && !slices.ContainsFunc(out.constants, func(b []byte) bool { return string(b) == string(e.data) }) {
				out.constants = append(out.constants, e.data)
			}
		}
		if len(out.constants) == 0 {
			out.unknown = "a map chooses it"
		}
		r.set(to.number(), out)
	}
	return nil
}

// interval has both its ends.
type interval struct{ from, to []byte }

type chosenInterval struct {
	interval
	action *Action
}

func intervals(list []element, size int) []interval {
	var all []interval
	for _, i := range intervalsOf(list, size) {
		all = append(all, i.interval)
	}
	return all
}

// intervalsOf joins the beginnings and the ends of a set.
func intervalsOf(list []element, size int) []chosenInterval {
	if !slices.ContainsFunc(list, func(e element) bool { return e.end }) {
		var all []chosenInterval
		for _, e := range list {
			to := e.key
			if e.keyEnd != nil {
				to = e.keyEnd
			}
			all = append(all, chosenInterval{interval{e.key, to}, e.action})
		}
		return all
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b element) int {
		ends := func(e element) int {
			if e.end {
				return 0
			}
			return 1
		}
		return cmp.Or(slices.Compare(a.key, b.key), ends(a)-ends(b))
	})
	var all []chosenInterval
	for i, e := range list {
		if e.end {
			continue
		}
		to := slices.Repeat([]byte{0xff}, len(e.key))
		if i+1 < len(list) {
			to = before(list[i+1].key)
		}
		all = append(all, chosenInterval{interval{e.key, to}, e.action})
	}
	return all
}

// before is the number before.
func before(b []byte) []byte {
	b = slices.Clone(b)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return b
}
