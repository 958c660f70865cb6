package twin

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pfdivert/roles/lab/labtest"
)

// Rules are written as the tools that made them do.
func TestRuleTexts(t *testing.T) {
	for _, c := range []struct{ name, load, save, file string }{
		{"nft", "nft -f -", "nft list ruleset", "testdata/texts.nft"},
		{"iptables-nft", "iptables-nft-restore", "iptables-nft-save", "testdata/texts.iptables"},
		{"iptables-legacy", "iptables-legacy-restore", "iptables-legacy-save", "testdata/texts.iptables"},
		{"ip6tables-nft", "ip6tables-nft-restore", "ip6tables-nft-save", "testdata/texts.ip6tables"},
		{"ip6tables-legacy", "ip6tables-legacy-restore", "ip6tables-legacy-save", "testdata/texts.ip6tables"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules, err := os.ReadFile(c.file)
			if err != nil {
				t.Fatal(err)
			}
			n := testNetns(t)
			inNetns(t, n, string(rules), c.load)
			config, err := n.Read(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			var want, got []string
			counts := regexp.MustCompile(` packets \d+ bytes \d+`)
			chain := regexp.MustCompile(`^(table |chain |set |map |type |flags |elements |}|$|\*|:|#|COMMIT)`)
			for line := range strings.Lines(inNetns(t, n, "", c.save)) {
				line = counts.ReplaceAllString(strings.TrimSpace(line), "")
				line = strings.ReplaceAll(line, " --ctstate DNAT", " --ctstate DNAT")
				if _, rest, ok := strings.Cut(line, "-A "); ok && strings.HasPrefix(line, "-A ") {
					_, rest, _ = strings.Cut(rest, " ")
					want = append(want, rest)
				} else if !chain.MatchString(line) {
					want = append(want, line)
				}
			}
			w := newWriter(config)
			for _, table := range config.Tables {
				for _, chain := range table.Chains {
					for _, r := range chain.Rules {
						got = append(got, w.rule(table, r))
					}
				}
			}
			for _, table := range config.Legacy {
				all, err := table.rules()
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range all {
					if !r.policy && !r.head && !r.tail {
						got = append(got, w.legacyText(table, all, r))
					}
				}
			}
			slices.Sort(want)
			slices.Sort(got)
			if len(want) < 10 {
				t.Fatalf("the tool lists %d rules", len(want))
			}
			for _, line := range want {
				if i, ok := slices.BinarySearch(got, line); ok {
					got = slices.Delete(got, i, i+1)
				} else {
					t.Errorf("no rule is written like the tool's\n%s", line)
				}
			}
			for _, line := range got {
				t.Errorf("the tool has no rule that is written\n%s", line)
			}
			if w.abridged {
				t.Error("a text is said to be abridged")
			}
		})
	}
}

// testNetns returns a namespace of a test's own.
func testNetns(t *testing.T) *Netns {
	t.Helper()
	n, err := NewNetns()
	if err != nil {
		labtest.Lacks(t, "network namespaces", err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// inNetns runs a command line there.
func inNetns(t *testing.T, n *Netns, input, command string) string {
	t.Helper()
	labtest.Root(t)
	var out []byte
	err := n.Do(func() (err error) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.Command("sh", "-ec", command)
		cmd.Stdin = strings.NewReader(input)
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		labtest.Shell(t, out)
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}
