package testbed

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// Each filter has a testbed with a name of its own, hosts keep theirs, and those of one host take
// turns.
func TestByFilter(t *testing.T) {
	dial := func(context.Context) (*Pair, error) { return &Pair{}, nil }
	for _, c := range []struct {
		beds []*Testbed
		want string
	}{
		{[]*Testbed{{Dial: dial}}, `0 "" "", turns false`},
		{[]*Testbed{{Dial: dial, filter: "xt"}}, `0 "" "xt", turns false`},
		{[]*Testbed{{Dial: dial, filter: FilterAll}},
			`0 "nft" "nft", turns true; 1 "xt" "xt", turns true; 2 "xt-legacy" "xt-legacy", turns true`},
		{[]*Testbed{{Name: "a", Dial: dial, filter: FilterAll}, {Name: "b", Dial: dial, filter: "xt"}},
			`0 "a-nft" "nft", turns true; 1 "a-xt" "xt", turns true; 2 "a-xt-legacy" "xt-legacy", turns true; ` +
				`3 "b" "xt", turns false`},
	} {
		if pfconf.BPF.Built() { // the last two of all
			c.want = strings.NewReplacer(`2 "xt-legacy" "xt-legacy", turns true`,
				`2 "xt-legacy" "xt-legacy", turns true; 3 "bpf" "bpf", turns true; `+
					`4 "bpf-lookup" "bpf-lookup", turns true`,
				`2 "a-xt-legacy" "xt-legacy", turns true; 3 "b"`,
				`2 "a-xt-legacy" "xt-legacy", turns true; 3 "a-bpf" "bpf", turns true; `+
					`4 "a-bpf-lookup" "bpf-lookup", turns true; 5 "b"`).Replace(c.want)
		}
		var got []string
		for _, b := range byFilter(c.beds) {
			p, err := b.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%d %q %q, turns %v", b.Index, b.Name, p.Options.Filter, b.turn != nil))
		}
		if all := strings.Join(got, "; "); all != c.want {
			t.Errorf("%s\nwant %s", all, c.want)
		}
	}
	// A build without programs says how to get one with them.
	err := ValidFilter(string(pfconf.BPF))
	if (err == nil) != pfconf.BPF.Built() || err != nil && !strings.Contains(fmt.Sprint(err), "this build") {
		t.Errorf("-filter bpf: %v", err)
	}
	if _, err := Find(Options{Filter: "ipt"}, matrix.Targets()); err == nil || !strings.Contains(err.Error(), `"ipt"`) {
		t.Errorf("a filter that there is not: %v", err)
	}
}

// filter= in a hosts file is one of the filters.
func TestHostsFileFilter(t *testing.T) {
	hosts, err := parseHosts("f", "a filter=xt-legacy\nkernel=/boot/vmlinuz filter=all\nb\n")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Filter: "nft"}
	for i, want := range []string{"xt-legacy", FilterAll, "nft"} {
		if got := o.filterOf(hosts[i]); got != want {
			t.Errorf("%s: %q, want %q", hosts[i].name, got, want)
		}
	}
	if _, err := parseHosts("f", "a filter=legacy"); err == nil || !strings.HasPrefix(err.Error(), "f:1: ") {
		t.Errorf("an unknown filter: %v", err)
	}
}
