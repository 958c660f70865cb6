package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// REMOTE finds the interfaces to a second network and to a third host and whether it forwards, or
// names the one thing that it lacks.
func TestFindBeyond(t *testing.T) {
	gateway := "set GATEWAY_ADDR to an address of LOCAL's in a network that REMOTE has a second interface in"
	mirror := "set MIRROR_ADDR to a third host behind another interface of REMOTE's"
	for _, c := range []struct {
		gateway, mirror string
		towards         string            // the interface to LOCAL
		change          map[string]string // what commands print in place of the transcript; behind a "!", as an error
		want            script.Beyond
		items           string
	}{
		{gateway: "10.188.3.1", mirror: "10.188.4.1", want: script.Beyond{Gateway: "vtnet1", Mirror: "vtnet2"},
			items: "ok inet second network: 10.188.3.1 by vtnet1; ok inet third host: 10.188.4.1 by vtnet2; " +
				"ok inet forwarding: it is on"},
		{gateway: "fd00:188:3::1", mirror: "fd00:188:4::1", want: script.Beyond{Gateway: "vtnet1", Mirror: "vtnet2"}},
		{gateway: "10.188.3.1", want: script.Beyond{Gateway: "vtnet1"},
			items: "ok inet second network: 10.188.3.1 by vtnet1"},
		{mirror: "10.188.4.1", want: script.Beyond{Mirror: "vtnet2"}},
		{mirror: "10.9.9.9", towards: "vtnet1", want: script.Beyond{Mirror: "vtnet0"}}, // a router is on the way
		{gateway: "10.9.9.9", want: script.Beyond{NoGateway: script.Lack{Hint: gateway,
			Why: "it has no interface in the network of the gateway 10.9.9.9: the way there is via 10.188.1.1"}},
			items: "warn inet second network: it has no interface in the network of the gateway 10.9.9.9: the way there is via " +
				"10.188.1.1: the targets that need it are SKIP"},
		{gateway: "10.9.7.9", want: script.Beyond{NoGateway: script.Lack{Hint: gateway,
			Why: "it has no route to the gateway 10.9.7.9"}}},
		{gateway: "10.9.8.9", want: script.Beyond{NoGateway: script.Lack{Hint: gateway,
			Why: "it has no route to the gateway 10.9.8.9"}}},
		{gateway: "10.188.3.2", want: script.Beyond{NoGateway: script.Lack{Hint: gateway,
			Why: "the gateway 10.188.3.2 is its own address"}}},
		{gateway: "10.188.1.1", want: script.Beyond{NoGateway: script.Lack{Hint: gateway,
			Why: "it reaches the gateway 10.188.1.1 by vtnet0, as it does LOCAL"}}},
		{gateway: "10.188.3.1", mirror: "10.188.3.9", want: script.Beyond{Mirror: "vtnet1", NoGateway: script.Lack{
			Hint: gateway, Why: "it reaches the gateway 10.188.3.1 and the third host 10.188.3.9 by one interface, vtnet1"}}},
		{mirror: "10.9.7.9", want: script.Beyond{NoMirror: script.Lack{Hint: mirror,
			Why: "it has no route to the third host 10.9.7.9"}}},
		{mirror: "10.188.3.2", want: script.Beyond{NoMirror: script.Lack{Hint: mirror,
			Why: "the third host's address 10.188.3.2 is its own"}}},
		{mirror: "10.9.9.9", want: script.Beyond{NoMirror: script.Lack{Hint: mirror,
			Why: "it reaches the third host 10.9.9.9 by vtnet0, as it does LOCAL"}}},
		{mirror: "10.188.4.1", change: map[string]string{"sysctl -n net.inet.ip.forwarding": "0"},
			want: script.Beyond{Mirror: "vtnet2", NoForwarding: script.Lack{
				Why:  "it does not forward IPv4: sysctl net.inet.ip.forwarding is 0",
				Hint: "sysctl net.inet.ip.forwarding=1"}},
			items: "ok inet third host: 10.188.4.1 by vtnet2; warn inet forwarding: it does not forward IPv4: sysctl " +
				"net.inet.ip.forwarding is 0: the targets that need it are SKIP"},
		{mirror: "fd00:188:4::1", change: map[string]string{"sysctl -n net.inet6.ip6.forwarding": "2"},
			want: script.Beyond{Mirror: "vtnet2", NoForwarding: script.Lack{
				Why:  "it does not forward IPv6: sysctl net.inet6.ip6.forwarding is 2",
				Hint: "sysctl net.inet6.ip6.forwarding=1"}}},
		{mirror: "10.188.4.1", want: script.Beyond{Mirror: "vtnet2"},
			change: map[string]string{"pfctl -s Interfaces -v": "all\nvtnet0 (skip)\nvtnet1 (skip)\nvtnet2\n"}},
		{gateway: "10.188.3.1", mirror: "10.188.4.1",
			change: map[string]string{"pfctl -s Interfaces -v": "vtnet2 (skip)\n"},
			want: script.Beyond{Gateway: "vtnet1", Mirror: "vtnet2", NoPF: script.Lack{
				Why: "pf.conf has 'set skip on' for vtnet2", Hint: cureSkip("vtnet2")}},
			items: "ok inet second network: 10.188.3.1 by vtnet1; ok inet third host: 10.188.4.1 by vtnet2; " +
				"ok inet forwarding: it is on; warn inet pf sees the interfaces: pf.conf has 'set skip on' for vtnet2: " +
				"the targets that need it are SKIP"},
		{gateway: "10.188.3.1", change: map[string]string{"pfctl -s info": "Status: Disabled\n",
			"pfctl -s Interfaces -v": "vtnet1 (skip)\n"}, want: script.Beyond{Gateway: "vtnet1"}},
		// OpenBSD says other things of a neighbour and of an own address.
		{gateway: "10.188.3.1", towards: "vio0", want: script.Beyond{Gateway: "vio1"},
			change: map[string]string{"route -n get -inet 10.188.3.1": "destination: 10.188.3.1\n" +
				"       mask: 255.255.255.255\n  interface: vio1\n if address: 10.188.3.2\n   priority: 3 ()\n" +
				"      flags: <UP,HOST,DONE,LLINFO,CLONED,CACHED>\n"}},
		{gateway: "10.188.3.2", towards: "vio0", want: script.Beyond{NoGateway: script.Lack{Hint: gateway,
			Why: "the gateway 10.188.3.2 is its own address"}},
			change: map[string]string{"route -n get -inet 10.188.3.2": "destination: 10.188.3.2\n" +
				"       mask: 255.255.255.255\n  interface: vio1\n if address: 10.188.3.2\n   priority: 1 (local)\n" +
				"      flags: <UP,HOST,DONE,LLINFO,LOCAL>\n"}},
		// Questions that failed prove no lack.
		{mirror: "10.188.4.1", change: map[string]string{"pfctl -s Interfaces -v": "!pfctl: no memory"},
			want: script.Beyond{Mirror: "vtnet2", NoPF: script.Lack{Failed: true,
				Why: "whether pf looks at vtnet2: pfctl -s Interfaces -v: pfctl: no memory (exit status 1)"}}},
		{mirror: "10.188.4.1", change: map[string]string{"sysctl -n net.inet.ip.forwarding": "!sysctl: unknown oid"},
			want: script.Beyond{Mirror: "vtnet2", NoForwarding: script.Lack{Failed: true,
				Why: "whether it forwards IPv4: sysctl -n net.inet.ip.forwarding: sysctl: unknown oid (exit status 1)"}},
			items: "ok inet third host: 10.188.4.1 by vtnet2; failed inet forwarding: whether it forwards IPv4: sysctl -n " +
				"net.inet.ip.forwarding: sysctl: unknown oid (exit status 1)"},
		{mirror: "10.188.4.1", change: map[string]string{"sysctl -n net.inet.ip.forwarding": "yes"},
			want: script.Beyond{Mirror: "vtnet2", NoForwarding: script.Lack{Failed: true,
				Why: `whether it forwards IPv4: sysctl -n net.inet.ip.forwarding: not understood: "yes"`}}},
		{gateway: "10.188.3.1", change: map[string]string{"route -n get -inet 10.188.3.1": "!route: no memory"},
			want: script.Beyond{NoGateway: script.Lack{Failed: true, Hint: gateway,
				Why: "the way to the gateway 10.188.3.1: route -n get -inet 10.188.3.1: route: no memory (exit status 1)"}}},
		{mirror: "10.188.4.1", change: map[string]string{"route -n get -inet 10.188.4.1": "interface: vtnet2\n"},
			want: script.Beyond{NoMirror: script.Lack{Failed: true, Hint: mirror,
				Why: "the way to the third host 10.188.4.1: route -n get 10.188.4.1: not understood: " +
					`"interface: vtnet2\n"`}}},
	} {
		run := replay(t, "beyond-freebsd", func(command string, r *program.Output) {
			text, ok := c.change[command]
			if failed, isError := strings.CutPrefix(text, "!"); isError {
				*r = program.Output{Stderr: failed, Status: 1}
			} else if ok {
				r.Stdout = text
			}
		})
		s, family := &script.Setup{Remote: true}, pfconf.Inet
		for _, a := range []struct {
			text string
			to   *[]netip.Addr
		}{{c.gateway, &s.Gateways}, {c.mirror, &s.Beyond}} {
			if a.text != "" {
				*a.to = append(*a.to, netip.MustParseAddr(a.text))
				family = pfconf.FamilyOf((*a.to)[0])
			}
		}
		if c.towards == "" {
			c.towards = "vtnet0"
		}
		all := findBeyond(context.Background(), run, s, map[pfconf.Family]string{family: c.towards})
		if got := all[family]; got != c.want || len(all) != 1 {
			t.Errorf("gateway %q, third host %q: %+v\nwant %+v", c.gateway, c.mirror, all, c.want)
		}
		var found checks
		found.beyond(s, all)
		var items []string
		for _, i := range found {
			mark := "ok"
			switch {
			case i.Failed:
				mark = "failed"
			case i.Warn:
				mark = "warn"
			}
			if (i.Cure == "") != (mark != "warn") {
				t.Errorf("%+v: what can be done about it?", i)
			}
			items = append(items, fmt.Sprintf("%s %s: %s", mark, i.Name, i.Detail))
		}
		if got := strings.Join(items, "; "); c.items != "" && got != c.items {
			t.Errorf("%s\nwant %s", got, c.items)
		}
	}
	if all := findBeyond(context.Background(), nil, &script.Setup{}, nil); len(all) != 0 {
		t.Errorf("without such hosts: %+v", all)
	}
}

// LOCAL has a route of its own to each third host, as to FAKE.
func TestRoutesToBeyond(t *testing.T) {
	s := &script.Setup{
		Paths: []script.Path{{Here: netip.MustParseAddr("10.188.1.1"), There: netip.MustParseAddr("10.188.1.2")},
			{Here: netip.MustParseAddr("fd00:188:1::1"), There: netip.MustParseAddr("fd00:188:1::2")}},
		Fakes:  []netip.Prefix{netip.MustParsePrefix("10.188.2.0/24")},
		Beyond: []netip.Addr{netip.MustParseAddr("10.188.4.1"), netip.MustParseAddr("fd00:188:4::1")},
	}
	want := []route{routeTo("10.188.2.0/24", "10.188.1.2"), routeTo("10.188.4.1/32", "10.188.1.2"),
		routeTo("fd00:188:4::1/128", "fd00:188:1::2")}
	if got := routesTo(s); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
