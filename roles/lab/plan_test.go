package lab

import (
	"math"
	"testing"

	"pfdivert/pfconf"
)

func TestPair(t *testing.T) {
	for _, c := range []struct {
		family      pfconf.Family
		single      bool
		n           int
		local, fake string // "" for an error
	}{
		{pfconf.Inet, false, 1, "10.192.0.1", "10.208.0.1"},
		{pfconf.Inet, false, 256, "10.192.1.0", "10.208.1.0"},
		{pfconf.Inet, false, 1<<20 - 1, "10.207.255.255", "10.223.255.255"},
		{pfconf.Inet, false, 1 << 20, "", ""},
		{pfconf.Inet, false, math.MaxInt, "", ""},
		{pfconf.Inet, false, 0, "", ""},
		{pfconf.Inet, false, -1, "", ""},
		{pfconf.Inet, true, 5, "10.188.1.1", "10.188.2.9"},
		{pfconf.Inet6, false, 1, "fd00:188:3::1", "fd00:188:2::1"},
		{pfconf.Inet6, false, 1<<20 - 1, "fd00:188:3::f:ffff", "fd00:188:2::f:ffff"},
		{pfconf.Inet6, false, -1, "", ""},
		{pfconf.Inet6, true, 5, "fd00:188:1::1", "fd00:188:2::9"},
	} {
		local, fake, err := Config{Single: c.single}.PlanOf(c.family).Pair(c.n)
		if c.local == "" {
			if err == nil {
				t.Errorf("%v number %d: %v, %v; want an error", c.family, c.n, local, fake)
			}
			continue
		}
		if err != nil || local.String() != c.local || fake.String() != c.fake {
			t.Errorf("%v number %d: %v, %v, %v; want %s, %s", c.family, c.n, local, fake, err, c.local, c.fake)
		}
	}
}
