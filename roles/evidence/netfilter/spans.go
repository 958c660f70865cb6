package netfilter

import "slices"

// span is a range of numbers with both its ends, and spans a set of them: sorted, and apart.
type (
	span  struct{ lo, hi uint64 }
	spans []span
)

const last = 1<<64 - 1

var allPorts = spans{{0, 65535}}

func just(n uint64) spans { return spans{{n, n}} }

// spansOf sorts and joins.
func spansOf(list []span) spans {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b span) int {
		switch {
		case a.lo < b.lo:
			return -1
		case a.lo > b.lo:
			return 1
		}
		return 0
	})
	var s spans
	for _, x := range list {
		if n := len(s); n > 0 && (s[n-1].hi == last || x.lo <= s[n-1].hi+1) {
			s[n-1].hi = max(s[n-1].hi, x.hi)
		} else if x.lo <= x.hi {
			s = append(s, x)
		}
	}
	return s
}

func (s spans) has(n uint64) bool {
	return slices.ContainsFunc(s, func(x span) bool { return x.lo <= n && n <= x.hi })
}

func (s spans) and(o spans) spans {
	var all []span
	for _, a := range s {
		for _, b := range o {
			if lo, hi := max(a.lo, b.lo), min(a.hi, b.hi); lo <= hi {
				all = append(all, span{lo, hi})
			}
		}
	}
	return spansOf(all)
}

func (s spans) without(o spans) spans {
	for _, b := range o {
		var left []span
		for _, a := range s {
			if b.lo > a.lo {
				left = append(left, span{a.lo, min(a.hi, b.lo-1)})
			}
			if b.hi < a.hi {
				left = append(left, span{max(a.lo, b.hi+1), a.hi})
			}
		}
		s = spansOf(left)
	}
	return s
}

func (s spans) or(o spans) spans { return spansOf(slices.Concat(s, o)) }
