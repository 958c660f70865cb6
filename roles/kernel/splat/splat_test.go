package splat

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestPanic finds the report in a console's log of Linux 6.1, which sysrq made panic.
func TestPanic(t *testing.T) {
	text, err := os.ReadFile("testdata/panic.log")
	if err != nil {
		t.Fatal(err)
	}
	var f Finder
	for line := range strings.Lines(string(text)) {
		f.Line(strings.TrimRight(line, "\n"))
	}
	got := f.Take()
	if len(got) != 1 || Title(got[0]) != "Kernel panic - not syncing: sysrq triggered crash" ||
		!strings.Contains(got[0], "\n sysrq_handle_crash+") {
		t.Errorf("reports: %q", got)
	}
	if again := f.Take(); again != nil {
		t.Errorf("told twice: %q", again)
	}
}

// TestTitles: which lines begin a report, and which only look so.
func TestTitles(t *testing.T) {
	for _, line := range []string{
		"WARNING: CPU: 0 PID: 208 at arch/x86/kernel/traps.c:1120 exc_debug_kernel+0xca/0x160",
		"WARNING: net/core/dev.c:1234 at netif_rx+0x12/0x20, CPU#1: exe/12",
		"WARNING: possible circular locking dependency detected",
		"WARNING: suspicious RCU usage",
		"WARNING: inconsistent lock state",
		"BUG: KASAN: slab-use-after-free in nft_tproxy_eval+0x1/0x2",
		"BUG: kernel NULL pointer dereference, address: 0000000000000008",
		"BUG: sleeping function called from invalid context at mm/slab.h:1",
		"kernel BUG at net/core/skbuff.c:120!",
		"Oops: double fault: 0000 [#1] PREEMPT SMP NOPTI",
		"Oops - BUG: 0 [#1] SMP ARM",
		"Internal error: Oops: 0000000096000004 [#1] SMP",
		"Unable to handle kernel pointer dereference in virtual kernel address space",
		"general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]",
		"UBSAN: array-index-out-of-bounds in net/ipv4/raw.c:1:2",
		"Kernel panic - not syncing: Fatal exception in interrupt",
	} {
		for _, before := range []string{"", "[   12.345678] ", "<4>[    1.000000] ", "[   12.345678][  T208] "} {
			var f Finder
			f.Line(before + line)
			if got := f.Take(); !slices.Equal(got, []string{line + "\n"}) {
				t.Errorf("%q: %q", before+line, got)
			}
		}
	}
	for _, line := range []string{
		"Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
		"WARNING: workqueue cpumask: online intersect > possible intersect",
		"watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [exe:208]",
		"rcu: INFO: rcu_sched self-detected stall on CPU",
		"INFO: task exe:208 blocked for more than 120 seconds.",
		"IPv6: ADDRCONF(NETDEV_CHANGE): local0: link becomes ready",
		"Debugging: BUG: none",
	} {
		var f Finder
		f.Line("[   12.345678] " + line)
		if got := f.Take(); got != nil {
			t.Errorf("%q is taken for a report", line)
		}
	}
}

// TestBounded: a report without an end does not grow for ever, and a second one is told apart.
func TestBounded(t *testing.T) {
	var f Finder
	f.Line("BUG: first")
	for range 10 * maxLines {
		f.Line(" more")
	}
	f.Line("BUG: second")
	f.Line("---[ end trace 0000000000000000 ]---")
	f.Line("BUG: third")
	got := f.Take()
	if len(got) != 3 || strings.Count(got[0], "\n") != maxLines || Title(got[2]) != "BUG: third" {
		t.Errorf("reports: %q", got)
	}
}
