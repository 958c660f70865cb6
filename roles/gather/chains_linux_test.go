package gather

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pfdivert/roles/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// What a chain does is read from the kernel as nft(8) and iptables(8) put it there: among matches
// and counters, by the policy, behind a jump, and by targets of xtables. Chains that only match and
// count are left out, and so are those of the table that is called this program's own.
func TestReadChains(t *testing.T) {
	labtest.Need(t)
	labtest.Programs(t, "nft", "iptables-nft")
	runtime.LockOSThread() // and so it ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if text, err := readChains("own"); text != "" || err != nil {
		t.Fatalf("%q, %v", text, err)
	}
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(`
table ip a {
	chain side { udp dport 7 reject; }
	chain in { type filter hook input priority 5; policy drop; meta mark 1 counter accept; }
	chain pre { type filter hook prerouting priority -301; ct zone 3 counter; ip saddr 10.0.0.1 notrack; ct zone set 5; tcp dport 1 meta mark set 7; jump side; }
	chain counts { type filter hook output priority 0; ct mark 5 counter; }
}
table ip6 b { chain nat { type nat hook prerouting priority -100; tcp dport 1 dnat to [fd00::1]; tcp dport 2 redirect; }; }
table inet own { chain in { type filter hook input priority 0; drop; }; }
table inet c { chain out { type nat hook postrouting priority 100; tcp sport 1 masquerade; ip saddr 10.0.0.1 snat ip to 10.0.0.2; }; }
table netdev d { chain other { }; }
`)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command("iptables-nft", "-t", "mangle", "-A", "FORWARD", "-p", "udp", "-j", "MARK",
		"--set-mark", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := readChains("own")
	want := `table inet c chain out type nat hook postrouting priority 100: masquerade, snat
table ip a chain in type filter hook input priority 5: drop
table ip a chain pre type filter hook prerouting priority -301: ct zone set, mark set, notrack, reject
table ip mangle chain FORWARD type filter hook forward priority -150: mark set
table ip6 b chain nat type nat hook prerouting priority -100: dnat, redirect`
	if text != want || err != nil {
		t.Errorf("%v:\n%s\nwant:\n%s", err, text, want)
	}
}
