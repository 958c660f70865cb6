package matrix

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

var someAddresses = Addresses{
	Local: netip.MustParseAddr("10.188.1.1"), Remote: netip.MustParseAddr("10.188.1.2"),
	Locals: netip.MustParsePrefix("10.192.0.0/12"), Fakes: netip.MustParsePrefix("10.208.0.0/12"),
}

var someAddresses6 = Addresses{
	Local: netip.MustParseAddr("fd00:188:1::1"), Remote: netip.MustParseAddr("fd00:188:1::2"),
	Locals: netip.MustParsePrefix("fd00:188:3::/64"), Fakes: netip.MustParsePrefix("fd00:188:2::/64"),
}

func space(a ...Addresses) *AddressPlan {
	families := map[pfconf.Family]Addresses{}
	for _, x := range a {
		families[pfconf.FamilyOf(x.Local)] = x
	}
	return NewAddressPlan(families)
}

// Every cell has addresses, ports and names of its own, in the prefixes.
func TestSpaceIsFresh(t *testing.T) {
	s := space(someAddresses, someAddresses6)
	seen := map[any]bool{}
	fresh := func(what any) {
		if seen[what] {
			t.Fatalf("%v is there twice", what)
		}
		seen[what] = true
	}
	targets := Targets()
	for i := range 2 * portsEach {
		c := s.Cell(targets[i%len(targets)])
		a := s.families[c.Family]
		fresh("session " + c.Session)
		fresh("label " + c.label(""))
		fresh("label " + c.label("-2"))
		fresh([2]any{"fake", c.Fake})
		fresh([2]any{"local", c.Local})
		if !a.Fakes.Contains(c.Fake) || !a.Locals.Contains(c.Local) || c.Fake == a.Fakes.Addr() ||
			c.Remote != a.Remote {
			t.Fatalf("%+v", c)
		}
		if c.Client < clientPorts || c.Client >= clientPorts+portsEach || c.Server < serverPorts ||
			c.Server >= serverPorts+portsEach || c.Server >= 32768 {
			t.Fatalf("ports %d and %d", c.Client, c.Server)
		}
		if !pfconf.ValidLabel(c.label("-2")) {
			t.Fatalf("label %s", c.label("-2"))
		}
		if c.lockKey != "" || c.shared {
			t.Fatalf("%s has to wait for its turn %q", c.Name, c.lockKey)
		}
		if i >= portsEach {
			continue
		}
		fresh([2]any{"client", c.Client})
		fresh([2]any{"server", c.Server})
	}
}

// With one address all have it, and those whose packets have no ports take turns.
func TestAddressPlanSingle(t *testing.T) {
	one := someAddresses
	one.Locals = netip.PrefixFrom(one.Local, 32)
	one.Fakes = netip.MustParsePrefix("10.188.2.9/32")
	s := space(one)
	for _, target := range Targets()[:len(Targets())/2] {
		c := s.Cell(target)
		if c.Local != one.Local || c.Fake != one.Fakes.Addr() || !c.shared {
			t.Errorf("%+v", c)
		}
		want := ""
		if !target.Proto.HasPorts() {
			want = "inet " + target.Proto.String()
		}
		if c.lockKey != want {
			t.Errorf("%s: turn %q, want %q", target.Name, c.lockKey, want)
		}
	}
}

// nth stays inside of the prefix, leaves its ends out where there is room and
// goes through all before it comes round.
func TestNth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := netip.PrefixFrom(netip.MustParseAddr("10.208.16.64"), rapid.IntRange(20, 32).Draw(t, "bits")).Masked()
		if rapid.Bool().Draw(t, "six") {
			p = netip.PrefixFrom(netip.MustParseAddr("fd00:188:2::1:4000"),
				rapid.IntRange(48, 128).Draw(t, "bits6")).Masked()
		}
		bits := p.Addr().BitLen() - p.Bits()
		n := rapid.Uint64Range(0, 1<<40).Draw(t, "n")
		a := nth(p, n)
		if !p.Contains(a) || bits > 1 && (a == p.Addr() || !p.Contains(a.Next())) {
			t.Fatalf("number %d of %v is %v", n, p, a)
		}
		if bits > 20 {
			return
		}
		around := uint64(1) << bits
		if bits > 1 {
			around -= 2
		}
		if b := nth(p, n+around); b != a {
			t.Fatalf("number %d of %v is %v, %d later it is %v", n, p, a, around, b)
		}
		if around > 1 && nth(p, n+1+n%(around-1)) == a {
			t.Fatalf("%v comes twice in %v", a, p)
		}
	})
}

func TestAddressesValidate(t *testing.T) {
	for _, a := range []Addresses{someAddresses, someAddresses6} {
		if err := a.Validate(); err != nil {
			t.Error(err)
		}
	}
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	for _, c := range []struct {
		change func(*Addresses)
		want   string
	}{
		{func(a *Addresses) { a.Remote = netip.Addr{} }, "no REMOTE address is given"},
		{func(a *Addresses) { a.Fakes = netip.Prefix{} }, "no FAKE address is given"},
		{func(a *Addresses) { a.Locals = netip.Prefix{} }, "no the cells' LOCAL address is given"},
		{func(a *Addresses) { a.Remote = a.Local }, "LOCAL and REMOTE are both 10.188.1.1"},
		{func(a *Addresses) { a.Fakes = prefix("10.188.1.0/24") }, "must not be an address of LOCAL"},
		{func(a *Addresses) { a.Fakes = prefix("fd00::/64") }, "fd00:: can't be the FAKE address"},
		{func(a *Addresses) { a.Local = addr("127.0.0.1") }, "127.0.0.1 can't be the LOCAL address"},
		{func(a *Addresses) { a.Local = addr("0.0.0.0") }, "0.0.0.0 can't be the LOCAL address"},
		{func(a *Addresses) { a.Remote = addr("224.0.0.1") }, "224.0.0.1 can't be the REMOTE address"},
	} {
		a := someAddresses
		c.change(&a)
		if err := a.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", a, err, c.want)
		}
	}
}

// Both hosts are told of the hosts beyond REMOTE, which are captured as FAKE is, and only the
// fences of targets that are about a third host go there.
func TestSetupsBeyond(t *testing.T) {
	address, prefix := netip.MustParseAddr, netip.MustParsePrefix
	opt := Options{Capture: true, Families: map[pfconf.Family]Addresses{pfconf.Inet: {Local: address("10.188.1.1"),
		Remote: address("10.188.1.2"), Locals: prefix("10.188.1.1/32"), Fakes: prefix("10.188.2.9/32")}},
		Second: map[pfconf.Family]Network{pfconf.Inet: {Gateway: address("10.188.3.1"), Mirror: address("10.188.4.1")},
			pfconf.Inet6: {Gateway: address("fd00:188:3::1")}}} // a family without addresses
	local, remote, err := Setups(opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []script.Setup{local, remote} {
		if !slices.Equal(s.Beyond, []netip.Addr{address("10.188.4.1")}) ||
			!slices.Equal(s.Gateways, []netip.Addr{address("10.188.3.1")}) ||
			!slices.Contains(s.Capture, prefix("10.188.4.1/32")) {
			t.Errorf("REMOTE %v: %+v", s.Remote, s)
		}
	}
	r := &runner{opt: opt, addresses: NewAddressPlan(opt.Families)}
	for name, beyond := range map[string]bool{"inet-args-tcp-to": false, "inet-divert-pf-reply-to": false,
		"inet-divert-forwarded": true, "inet-divert-pf-tag-in": true} {
		targets, err := Select([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		p := r.newCell(targets[0])
		for _, s := range []side{p.local, p.remote} {
			at := s.request()
			at.fence()
			want := script.Fence{Family: pfconf.Inet, Beyond: beyond && s.name == "local"}
			if at.steps[0] != script.Step(want) {
				t.Errorf("%s: %s: %+v, want %+v", name, s.name, at.steps[0], want)
			}
		}
	}
}
