package matrix

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The list of claims, and what a kernel that does not make one says.
func TestClaims(t *testing.T) {
	var b strings.Builder
	seen := map[string]bool{}
	for _, target := range Claims() {
		fmt.Fprintf(&b, "%s\t%s\n", target.Name, target.Proves())
		if seen[target.Name] || target.Kind() != target.Claim.kind() {
			t.Errorf("%s is there twice, or is of kind %s", target.Name, target.Kind())
		}
		seen[target.Name] = true
	}
	count := 2 * len(claims)
	for i := range claims {
		c := &claims[i]
		if c.Only != 0 {
			count--
		}
		if c.run == nil || c.Says == "" || len(c.By) == 0 {
			t.Errorf("%s: incomplete", c.Name)
		}
		for firewall := range c.By {
			if firewall != "nftables" && firewall != "pf" && firewall != "ipfw" {
				t.Errorf("%s: claimed by %q", c.Name, firewall)
			}
		}
		for firewall := range kernels {
			f := c.skip(Kernel{Firewall: firewall, Release: c.From})
			switch {
			case (f == nil) != (c.By[firewall] != ""):
				t.Errorf("%s on %s: %v", c.Name, firewall, f)
			case f != nil && (f.verdict != Skip || f.reason != NotClaimed || c.Not == ""):
				t.Errorf("%s on %s: %+v, because %q", c.Name, firewall, f, c.Not)
			}
		}
	}
	if len(seen) != count {
		t.Errorf("%d targets of %d claims, not %d", len(seen), len(claims), count)
	}
	// Claims by release: a manual of FreeBSD makes some no longer, or not yet.
	for name, made := range map[string][3]bool{ // by 12, 15 and a release that is not known
		"low-port": {true, false, true}, "counted": {false, true, false}, "pf-cookie-in": {false, true, false},
		"no-loop-in": {true, true, true},
	} {
		i := slices.IndexFunc(claims, func(c Claim) bool { return c.Name == name && c.About == "" })
		for j, release := range []int{12, 15, 0} {
			if f := claims[i].skip(Kernel{Firewall: "ipfw", Release: release}); (f == nil) != made[j] || f != nil &&
				f.reason != NotClaimed {
				t.Errorf("%s of FreeBSD %d: %+v", name, release, f)
			}
		}
	}
	const golden = "testdata/claims.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
