package nft

import (
	"fmt"
	"net/netip"
	"testing"

	"pfdivert/pfconf"
)

func BenchmarkChange(b *testing.B) {
	for _, n := range []int{1, 26, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := newNamespace(b).open(b, testConfig())
			rules, labels := numbered("a", n)
			for b.Loop() {
				check(b, f.Change(b.Context(), rules, nil))
				check(b, f.Change(b.Context(), nil, labels))
			}
		})
	}
}

// One rule comes and goes among others.
func BenchmarkChangeAmong700(b *testing.B) {
	f := newNamespace(b).open(b, testConfig())
	rules, _ := numbered("a", 700)
	check(b, f.Load(b.Context(), rules))
	one, labels := numbered("b", 1)
	for b.Loop() {
		check(b, f.Change(b.Context(), one, nil))
		check(b, f.Change(b.Context(), nil, labels))
	}
}

// A divert-packet rule comes and goes, with a number that was used before.
func BenchmarkChangeDivertPacket(b *testing.B) {
	f := newNamespace(b).open(b, testConfig())
	r := packetRule(pfconf.Inet, pfconf.In, 7000, 100)
	for b.Loop() {
		check(b, f.Change(b.Context(), []pfconf.Rule{r}, nil))
		check(b, f.Change(b.Context(), nil, []string{r.Label}))
	}
}

func BenchmarkCounters(b *testing.B) {
	for _, n := range []int{100, 700} {
		for _, asked := range []int{1, 26, n} {
			b.Run(fmt.Sprintf("%d of %d", asked, n), func(b *testing.B) {
				f := newNamespace(b).open(b, testConfig())
				rules, labels := numbered("a", n)
				check(b, f.Load(b.Context(), rules))
				for b.Loop() {
					_, err := f.Counters(b.Context(), labels[:asked])
					check(b, err)
				}
			})
		}
		b.Run(fmt.Sprintf("dump %d", n), func(b *testing.B) {
			f := newNamespace(b).open(b, testConfig())
			rules, _ := numbered("a", n)
			check(b, f.Load(b.Context(), rules))
			for b.Loop() {
				f.inForce(b)
			}
		})
	}
}

// 26 callers at once, as when all cells of a run ask.
func BenchmarkAtTheSameTime(b *testing.B) {
	f := newNamespace(b).open(b, testConfig())
	rules, labels := numbered("a", 26)
	check(b, f.Load(b.Context(), rules))
	b.SetParallelism(26)
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			_, err := f.Counters(b.Context(), labels[i%26:i%26+1])
			check(b, err)
		}
	})
}

func BenchmarkStates(b *testing.B) {
	f := newNamespace(b).open(b, testConfig())
	flow := pfconf.Flow{
		Family: pfconf.Inet, Proto: pfconf.TCP,
		Near: netip.AddrPortFrom(addr(pfconf.Inet, 2, 9), 7001),
		Far:  netip.AddrPortFrom(addr(pfconf.Inet, 1, 2), 40000),
	}
	b.Run("Lookup", func(b *testing.B) {
		for b.Loop() {
			_, err := f.Lookup(b.Context(), []pfconf.Flow{flow})
			check(b, err)
		}
	})
	b.Run("KillFlows", func(b *testing.B) {
		for b.Loop() {
			_, err := f.KillFlows(b.Context(), []pfconf.Flow{flow})
			check(b, err)
		}
	})
	b.Run("States", func(b *testing.B) {
		for b.Loop() {
			_, err := f.States(b.Context())
			check(b, err)
		}
	})
}

func BenchmarkOpenClose(b *testing.B) {
	n := newNamespace(b)
	rules, _ := numbered("a", 26)
	for b.Loop() {
		n.do(b, func() {
			f, err := Open(b.Context(), testConfig())
			check(b, err)
			check(b, f.Load(b.Context(), rules))
			b.StopTimer()
			check(b, f.Close(b.Context()))
			b.StartTimer()
		})
	}
}
