package twin

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pfdivert/roles/lab/labtest"
)

// bigHost makes a namespace with 5,000 rules, a set of 100,000 networks, one of 100,000 addresses
// in an anonymous set, and 100,000 networks in ipset.
func bigHost(t testing.TB) *Netns {
	t.Helper()
	host, err := NewNetns()
	if err != nil {
		labtest.Lacks(t, "network namespaces", err)
	}
	t.Cleanup(func() { _ = host.Close() })
	var nft, ipset strings.Builder
	nft.WriteString("table inet big {\nset nets { type ipv4_addr; flags interval; elements = {\n")
	ipset.WriteString("create nets hash:net maxelem 200000\n")
	for i := range 100000 {
		fmt.Fprintf(&nft, "%d.%d.%d.0/25,\n", 11+i/65536, i/256%256, i%256)
		fmt.Fprintf(&ipset, "add nets %d.%d.%d.0/25\n", 11+i/65536, i/256%256, i%256)
	}
	nft.WriteString("} }\nset pairs { type ipv4_addr . inet_service; flags interval; elements = {\n")
	for i := range 6000 {
		fmt.Fprintf(&nft, "20.%d.%d.0/24 . 80-90,\n", i/256, i%256)
	}
	nft.WriteString("} }\nchain prerouting { type filter hook prerouting priority mangle;\nip saddr . tcp dport @pairs accept\nip daddr @nets accept\nip daddr {\n")
	for i := range 100000 {
		fmt.Fprintf(&nft, "30.%d.%d.%d,\n", i/65536, i/256%256, i%256)
	}
	nft.WriteString("} accept\n")
	for i := range 5000 {
		fmt.Fprintf(&nft, "ip saddr 10.1.%d.%d tcp dport %d counter accept\n", i/250, i%250+1, i+1)
	}
	nft.WriteString("}\n}\n")
	dir := t.TempDir()
	for name, text := range map[string]string{"nft": nft.String(), "ipset": ipset.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shell(t, host, fmt.Sprintf("ip link set lo up\nnft -f %s/nft\nipset restore < %s/ipset", dir, dir))
	return host
}

// flowTo is a flow that asks big sets for an address and port.
func flowTo(to string) Flow { return Flow{To: netip.MustParseAddrPort(to)} }

// Of big sets the twin has the elements that flows meet: whole intervals, and nothing for what is
// in none.
func TestBigSets(t *testing.T) {
	host := bigHost(t)
	ctx := context.Background()
	start := time.Now()
	live, err := host.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("read", time.Since(start))
	start = time.Now()
	if len(live.Partial) != 3 {
		t.Fatalf("sets of which a sample was read: %v", live.Partial)
	}
	if err := host.Do(func() error {
		return live.Ask(ctx, []Flow{flowTo("11.0.7.9:80"), flowTo("11.0.7.5:80"), flowTo("11.0.7.200:80"),
			flowTo("30.1.2.3:443"), flowTo("20.0.1.1:85")})
	}); err != nil {
		t.Fatal(err)
	}
	t.Log("asked", time.Since(start))
	start = time.Now()
	inside, outside := newNetns(t), newNetns(t)
	lacks, err := live.Replay(ctx, inside, outside)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("replayed", time.Since(start))
	start = time.Now()
	twin, err := inside.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(lacks, Compare(live, twin)...) {
		t.Error(d)
	}
	t.Log("compared", time.Since(start))
	got := map[string]string{}
	for _, s := range twin.Tables[0].Sets {
		for _, e := range s.Elements {
			got[s.Name] += fmt.Sprintf(" %x-%x,%d", e.Key, e.KeyEnd, e.Flags)
		}
	}
	for name, want := range map[string]string{
		"nets": " 0b000780-,1 0b000700-,0", "__set0": " 1e010203-,0", "pairs": " 1400010000500000-140001ff005a0000,0",
	} {
		if got[name] != want {
			t.Errorf("set %s has%s, want%s", name, got[name], want)
		}
	}
}

// BenchmarkTwin reads and replays a host with 5,000 rules and three sets of 100,000 networks or
// addresses: below 3 s, with less than 150 MB.
func BenchmarkTwin(b *testing.B) {
	host := bigHost(b)
	ctx := context.Background()
	for b.Loop() {
		live, err := host.Read(ctx)
		if err != nil {
			b.Fatal(err)
		}
		inside, err := NewNetns()
		if err != nil {
			b.Fatal(err)
		}
		outside, err := NewNetns()
		if err != nil {
			b.Fatal(err)
		}
		lacks, err := live.Replay(ctx, inside, outside)
		if err != nil || len(lacks) > 0 {
			b.Fatal(lacks, err)
		}
		_, _ = inside.Close(), outside.Close()
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kB float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %g kB", &kB); n == 1 {
			b.ReportMetric(kB/1024, "MB-peak")
		}
	}
}
