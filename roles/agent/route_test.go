package agent

import (
	"context"
	"errors"
	"net/netip"
	"pfdivert/matrix/script"
	"slices"
	"strings"
	"testing"
)

func routeTo(dst, via string) route {
	return route{netip.MustParsePrefix(dst), netip.MustParseAddr(via)}
}

// A run's route is added, found and removed by route(8).
func TestRouteTool(t *testing.T) {
	ctx := context.Background()
	tool := routeTool{replay(t, "route", nil)}
	r := routeTo("10.188.2.9/32", "10.188.1.2")
	if missing, err := r.plan(ctx, tool); err != nil || !missing {
		t.Errorf("with a default route elsewhere: missing %v, %v", missing, err)
	}
	check(t, tool.add(ctx, r))
	if missing, err := r.plan(ctx, tool); err != nil || missing {
		t.Errorf("after it was added: missing %v, %v", missing, err)
	}
	if err := tool.add(ctx, r); err == nil || !strings.Contains(err.Error(), "File exists (exit status 1)") {
		t.Errorf("added twice: %v", err)
	}
	check(t, tool.remove(ctx, r))
	if err := tool.remove(ctx, r); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	_, err := routeTo("10.177.2.0/24", "10.188.1.2").plan(ctx, tool)
	if err == nil || !strings.Contains(err.Error(), "has a route to 10.177.2.0/24 via 10.188.1.77") {
		t.Errorf("a route elsewhere: %v", err)
	}
	if missing, err := routeTo("fd00:188:2::9/128", "fd00:188:1::2").plan(ctx, tool); err != nil || !missing {
		t.Errorf("without any route: missing %v, %v", missing, err)
	}
	check(t, tool.add(ctx, routeTo("fd77::/64", "fd00:188:1::1")))
	_, err = routeTo("10.0.2.15/32", "10.188.1.2").plan(ctx, tool)
	if err == nil || !strings.Contains(err.Error(), "has a route to 10.0.2.15/32 without a router") {
		t.Errorf("an own address: %v", err)
	}
	err = tool.add(ctx, routeTo("10.188.2.77/32", "10.188.1.2"))
	if h := (hinted{}); !errors.As(err, &h) || !strings.Contains(h.hint, "SUDO") {
		t.Errorf("not root: %v", err)
	}
}

// The same on FreeBSD, whose route(8) says things in other words.
func TestRouteToolFreeBSD(t *testing.T) {
	ctx := context.Background()
	tool := routeTool{replay(t, "route-freebsd", nil)}
	r := routeTo("10.189.2.9/32", "10.189.1.1")
	if missing, err := r.plan(ctx, tool); err != nil || !missing {
		t.Errorf("with a default route elsewhere: missing %v, %v", missing, err)
	}
	check(t, tool.add(ctx, r))
	if missing, err := r.plan(ctx, tool); err != nil || missing {
		t.Errorf("after it was added: missing %v, %v", missing, err)
	}
	if err := tool.add(ctx, r); err == nil || !strings.Contains(err.Error(), "already in table (exit status 1)") {
		t.Errorf("added twice: %v", err)
	}
	check(t, tool.remove(ctx, r))
	if err := tool.remove(ctx, r); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	r = routeTo("fd00:189:2::/64", "fd00:189:1::1")
	first := netip.PrefixFrom(r.dst.Addr(), 128)
	if found, err := tool.taken(ctx, first); err != nil || len(found) != 1 || found[0] != (route{}) {
		t.Errorf("without any route: %v, %v", found, err)
	}
	check(t, tool.add(ctx, r))
	if found, err := tool.taken(ctx, first); err != nil || len(found) != 1 || found[0] != r {
		t.Errorf("after it was added: %v, %v", found, err)
	}
	check(t, tool.remove(ctx, r))
	if found, err := tool.taken(ctx, netip.MustParsePrefix("10.189.1.2/32")); err != nil || len(found) != 1 ||
		found[0].via.IsValid() {
		t.Errorf("an own address: %v, %v", found, err)
	}
	for dst, want := range map[string][2]string{"10.189.2.77": {"10.77.66.55", "one network"},
		"10.189.2.78": {"10.189.1.1", "SUDO"}} {
		err := tool.add(ctx, routeTo(dst+"/32", want[0]))
		if h := (hinted{}); !errors.As(err, &h) || !strings.Contains(h.hint, want[1]) {
			t.Errorf("%s via %s: %v", dst, want[0], err)
		}
	}
}

func TestParseRoute(t *testing.T) {
	for _, c := range []struct{ out, like, want string }{
		{"destination: 10.188.2.0\nmask: 255.255.254.0\ngateway: 10.188.1.2\n", "10.188.2.9", "10.188.2.0/23 via 10.188.1.2"},
		{"destination: 10.188.2.9\ngateway: 10.188.1.2\n", "10.188.2.9", "10.188.2.9/32 via 10.188.1.2"},
		{"destination: default\nmask: default\ngateway: 10.0.0.1\n", "10.188.2.9", "0.0.0.0/0 via 10.0.0.1"},
		{"destination: default\ngateway: fe80::1%em0\n", "fd00::1", "::/0 via fe80::1%em0"},
		{"destination: fd00:188:2::\nmask: ffff:ffff:ffff:ffff::\ngateway: fd00:188:1::2\n", "fd00:188:2::9",
			"fd00:188:2::/64 via fd00:188:1::2"},
		{"destination: fe80::%lo0\nmask: ffff:ffff:ffff:ffff::\ngateway: link#4\n", "fe80::1", "fe80::/64 without a router"},
		{"gateway: 10.0.0.1\n", "10.188.2.9", `destination "" not understood`},
		{"destination: 10.0.0.0\nmask: 0xff\n", "10.188.2.9", `mask "0xff" not understood`},
		{"", "10.188.2.9", `destination "" not understood`},
	} {
		r, err := parseRoute(c.out, netip.MustParseAddr(c.like))
		got := r.String()
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.out, got, c.want)
		}
	}
}

func FuzzParseRoute(f *testing.F) {
	f.Add("destination: 10.188.2.0\nmask: 255.255.254.0\ngateway: 10.188.1.2\n")
	f.Fuzz(func(_ *testing.T, out string) {
		_, _ = parseRoute(out, netip.MustParseAddr("10.188.2.9"))
	})
}

// table is a routing table for tests.
type table []route

func (t table) taken(context.Context, netip.Prefix) ([]route, error) { return t, nil }
func (table) add(context.Context, route) error                       { return errors.New("not asked for") }
func (table) remove(context.Context, route) error                    { return errors.New("not asked for") }

func TestRoutePlan(t *testing.T) {
	want := routeTo("10.188.2.0/24", "10.188.1.2")
	for _, c := range []struct {
		name    string
		there   table
		missing bool
		err     bool
	}{
		{"nothing", table{{}}, true, false},
		{"the same", table{want}, false, false},
		{"wider to REMOTE", table{routeTo("0.0.0.0/0", "10.188.1.2")}, false, false},
		{"wider elsewhere", table{routeTo("0.0.0.0/0", "10.188.1.1")}, true, false},
		{"a half to REMOTE, a half nowhere", table{routeTo("10.188.2.0/25", "10.188.1.2"), {}}, true, false},
		{"a half elsewhere", table{want, routeTo("10.188.2.0/25", "10.188.1.1")}, false, true},
		{"on the link", table{{dst: want.dst}}, false, true},
		{"wider on the link", table{{dst: netip.MustParsePrefix("10.188.0.0/16")}}, true, false},
	} {
		missing, err := want.plan(context.Background(), c.there)
		if missing != c.missing || (err != nil) != c.err {
			t.Errorf("%s: missing %v, %v", c.name, missing, err)
		}
	}
}

func TestLast(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.188.2.9/32": "10.188.2.9", "10.188.2.0/23": "10.188.3.255", "0.0.0.0/0": "255.255.255.255",
		"fd00::/121": "fd00::7f", "fd00:188:2::/64": "fd00:188:2:0:ffff:ffff:ffff:ffff",
	} {
		if got := last(netip.MustParsePrefix(prefix)); got.String() != want {
			t.Errorf("last(%s) = %v, want %s", prefix, got, want)
		}
	}
}

// FAKE of each family goes via REMOTE's address of that family.
func TestRoutesTo(t *testing.T) {
	s := script.Setup{
		Paths: []script.Path{{Here: netip.MustParseAddr("10.188.1.1"), There: netip.MustParseAddr("10.188.1.2")},
			{Here: netip.MustParseAddr("fd00::1"), There: netip.MustParseAddr("fd00::2")}},
		Fakes: []netip.Prefix{netip.MustParsePrefix("fd00:9::/64"), netip.MustParsePrefix("10.188.2.9/32")},
	}
	if got, want := routesTo(&s), []route{routeTo("fd00:9::/64", "fd00::2"),
		routeTo("10.188.2.9/32", "10.188.1.2")}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
