package gather

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
)

// sample reads a file that was copied from a Linux 6.18 host.
func sample(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/linux", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestProcCounters(t *testing.T) {
	all := map[string]int64{}
	for name, parse := range map[string]func(string, map[string]int64) error{
		"snmp": parsePairs, "netstat": parsePairs, "snmp6": parseNames,
	} {
		if err := parse(sample(t, name), all); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]int64{
		"Ip: DefaultTTL": 64, "Ip: InAddrErrors": 0, "Tcp: MaxConn": -1, "Tcp: ActiveOpens": 1,
		"TcpExt: TW": 1, "IpExt: InNoRoutes": 0, "Ip6: InNoRoutes": 0, "Udp6: NoPorts": 0, "Icmp6: OutType143": 2,
	} {
		if got, ok := all[name]; !ok || got != want {
			t.Errorf("%s is %d (%v), not %d", name, got, ok, want)
		}
	}
	for _, bad := range []string{"Ip: A B\nIp: 1\n", "Ip: A\n", "Ip: A\nTcp: 1\n", "Ip: A\nIp: x\n"} {
		if parsePairs(bad, map[string]int64{}) == nil {
			t.Errorf("%q is taken for counters", bad)
		}
	}
	if parseNames("Ip6InReceives\n", map[string]int64{}) == nil {
		t.Error("a name without a value is taken for a counter")
	}
}

func TestProcSockets(t *testing.T) {
	a := netip.MustParseAddrPort
	none := netip.AddrPort{}
	for _, c := range []struct {
		file string
		want []evidence.SocketEntry
	}{
		{"tcp", []evidence.SocketEntry{
			{Proto: "tcp", Local: a("127.0.0.1:25167"), Remote: none, State: "LISTEN"},
			{Proto: "tcp", Local: a("127.0.0.1:25167"), State: "TIME_WAIT"},
		}},
		{"tcp6", nil},
		{"udp", []evidence.SocketEntry{{Proto: "udp", Local: a("127.0.0.1:35294"), Remote: a("127.0.0.1:25167")}}},
		{"udp6", []evidence.SocketEntry{{Proto: "udp", Local: a("[::1]:25168")}}},
		{"raw", []evidence.SocketEntry{{Proto: "raw 254", Local: a("0.0.0.0:0")}}},
		{"raw6", []evidence.SocketEntry{{Proto: "icmp", Local: a("[::1]:0")}}},
		{"nfnetlink_queue", []evidence.SocketEntry{{Proto: "divert", Local: a("0.0.0.0:26600")}}},
	} {
		var got []evidence.SocketEntry
		take := func(s evidence.SocketEntry) {
			if s.Text == "" {
				t.Errorf("%s: %+v has no text", c.file, s)
			}
			got = append(got, s)
		}
		text := sample(t, c.file)
		err := error(nil)
		if c.file == "nfnetlink_queue" {
			var queues []netlink.Queue
			queues, err = netlink.ParseQueues(text)
			for _, q := range queues {
				take(queueEntry(q))
			}
		} else {
			err = parseSockets(strings.TrimSuffix(c.file, "6"), text, take)
		}
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
		}
		if c.file == "tcp" && len(got) == 2 { // its other end has a port that the kernel chose
			if got[1].Remote.Addr() != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("tcp: %+v", got[1])
			}
			got[1].Remote = none
		}
		if d := cmp.Diff(c.want, got, cmpopts.IgnoreFields(evidence.SocketEntry{}, "Text"),
			cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("%s:\n%s", c.file, d)
		}
	}
}

func FuzzProc(f *testing.F) {
	for _, name := range []string{"tcp", "udp6", "raw", "nfnetlink_queue", "snmp", "snmp6"} {
		f.Add(sample(f, name))
	}
	f.Fuzz(func(t *testing.T, text string) {
		take := func(evidence.SocketEntry) {}
		for _, proto := range []string{"tcp", "udp", "raw"} {
			_ = parseSockets(proto, text, take)
		}
		_, _ = netlink.ParseQueues(text)
		_ = parsePairs(text, map[string]int64{})
		_ = parseNames(text, map[string]int64{})
	})
}

// TestAboutSocket: a cell's evidence has its own sockets and those that could take its packets.
func TestAboutSocket(t *testing.T) {
	a := netip.MustParseAddrPort
	local, fake := a("10.192.0.2:8001"), a("10.208.0.2:20001")
	about := func(p pfconf.Proto) evidence.About {
		flow := pfconf.Flow{Family: pfconf.Inet, Proto: p, Near: fake, Far: local}
		if !p.HasPorts() {
			flow.Near, flow.Far = netip.AddrPortFrom(fake.Addr(), 0), netip.AddrPortFrom(local.Addr(), 0)
		}
		return evidence.About{Proto: p, Local: local.Addr(), Remote: netip.MustParseAddr("10.188.1.2"),
			Fake: fake.Addr(), Divert: 26600, Flows: []pfconf.Flow{flow}}
	}
	for _, c := range []struct {
		proto pfconf.Proto
		s     evidence.SocketEntry
		want  bool
	}{
		{pfconf.UDP, evidence.SocketEntry{Proto: "udp", Local: a("127.0.0.1:20001")}, true},
		{pfconf.UDP, evidence.SocketEntry{Proto: "udp", Local: a("0.0.0.0:20001")}, true},
		{pfconf.UDP, evidence.SocketEntry{Proto: "tcp", Local: a("0.0.0.0:20001")}, false},
		{pfconf.UDP, evidence.SocketEntry{Proto: "udp", Local: a("127.0.0.1:20002")}, false},
		// the control
		{pfconf.UDP, evidence.SocketEntry{Proto: "udp", Local: a("10.192.0.2:40000"), Remote: fake}, true},
		{pfconf.UDP, evidence.SocketEntry{Proto: "udp", Local: a("10.192.0.3:40000"), Remote: a("10.208.0.3:20001")},
			false},
		{pfconf.Raw, evidence.SocketEntry{Proto: "raw 254", Local: a("10.208.0.2:0")}, true},
		{pfconf.Raw, evidence.SocketEntry{Proto: "raw 254", Local: a("10.208.0.3:0")}, false},
		{pfconf.Raw, evidence.SocketEntry{Proto: "icmp", Local: a("10.208.0.2:0")}, false},
		{pfconf.UDP, evidence.SocketEntry{Proto: "divert", Local: a("0.0.0.0:26600")}, true},
		{pfconf.UDP, evidence.SocketEntry{Proto: "divert", Local: a("0.0.0.0:26601")}, false},
	} {
		if got := about(c.proto).Socket(c.s); got != c.want {
			t.Errorf("%v %+v: %v", c.proto, c.s, got)
		}
	}
}

// TestAboutValidate: a peer's description of a cell is bounded.
func TestAboutValidate(t *testing.T) {
	x := netip.MustParseAddr("10.0.0.1")
	good := evidence.About{Local: x, Remote: x, Fake: x}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	mixed, many, none := good, good, evidence.About{}
	mixed.Local = netip.MustParseAddr("fd00::1")
	many.Own = slices.Repeat([]netip.Addr{x}, evidence.MaxAbout+1)
	for _, bad := range []evidence.About{mixed, many, none} {
		if bad.Validate() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
