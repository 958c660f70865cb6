package gather

import (
	"net/netip"
	"os"
	"pfdivert/matrix/evidence"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func netstatSample(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParseStatistics(t *testing.T) {
	before, after := map[string]int64{}, map[string]int64{}
	parseStatistics(netstatSample(t, "openbsd/statistics-before"), before)
	parseStatistics(netstatSample(t, "openbsd/statistics-after"), after)
	want := map[string]int64{
		"divert: total packet received": 3, "divert: dropped due to no socket": 1,
		"divert: dropped due to full socket buffer": 0,
		"divert: packet output":                     2, "divert: error": 0,
	}
	if d := cmp.Diff(want, after); d != "" {
		t.Error(d)
	}
	for name := range want {
		if _, ok := before[name]; !ok {
			t.Errorf("%q is not counted before: %v", name, before)
		}
	}
	// One and many are the same counter (FreeBSD 14's plural()).
	one, many := map[string]int64{}, map[string]int64{}
	parseStatistics("ip:\n\t1 packet for unknown/unsupported protocol\n", one)
	parseStatistics("ip:\n\t2 packets for unknown/unsupported protocol\n\tOutput histogram:\n\t\techo reply: 5\n", many)
	name := "ip: packet for unknown/unsupported protocol"
	if one[name] != 1 || many[name] != 2 || many["ip: Output histogram echo reply"] != 5 {
		t.Errorf("%v, %v", one, many)
	}
}

// TestParseNetstatRaw: FreeBSD 12 parts the name of a raw socket's protocol from its family.
func TestParseNetstatRaw(t *testing.T) {
	for _, line := range []string{
		"ip 4       0      0 *.*                    *.*                    ",
		"ip4        0      0 *.*                    *.*                    ",
		"ip         0      0 *.*                    *.*                    ",
	} {
		n := 0
		err := parseNetstat(line, func(s evidence.SocketEntry) {
			n++
			if s.Proto != evidence.ProtoRaw || s.Local.Addr() != netip.IPv4Unspecified() {
				t.Errorf("%q: %+v", line, s)
			}
		})
		if err != nil || n != 1 {
			t.Errorf("%q: %d sockets, %v", line, n, err)
		}
	}
}

// TestCounterNames: a counter has one name, however much it and others beside it count.
func TestCounterNames(t *testing.T) {
	for text, want := range map[string]string{
		"221 acks (for 45369 bytes)":                     "ack",
		"1 data packet (7 bytes) retransmitted":          "data packet retransmitted",
		"5 packets for this host":                        "packet for this host",
		"2 SYN cache entries added":                      "SYN cache entry added",
		"4 PCB cache misses":                             "PCB cache miss",
		"1 PCB cache miss":                               "PCB cache miss",
		"6 connections established (including accepts)":  "connection established (including accepts)",
		"3 ack-only packets (2247 delayed)":              "ack-only packet",
		"9 packets (6225386 bytes) received in-sequence": "packet received in-sequence",
		"2 connections closed (including 1 drop)":        "connection closed",
		"1 ICMP packet ignored because of bad address":   "ICMP packet ignored because of bad address",
	} {
		all := map[string]int64{}
		parseStatistics("tcp:\n\t"+text+"\n", all)
		if _, ok := all["tcp: "+want]; !ok || len(all) != 1 {
			t.Errorf("%q: %v, not %q", text, all, want)
		}
	}
}

func TestParseNetstat(t *testing.T) {
	a := netip.MustParseAddrPort
	for _, c := range []struct {
		file string
		want []evidence.SocketEntry // some of them
	}{
		{"openbsd/netstat", []evidence.SocketEntry{
			{Proto: "tcp", Local: a("10.188.1.2:22"), Remote: a("10.188.1.1:46656"), State: "ESTABLISHED"},
			{Proto: "tcp", Local: a("0.0.0.0:22"), State: "LISTEN"},
			{Proto: "tcp", Local: a("[::]:22"), State: "LISTEN"},
			{Proto: "tcp", Local: a("[fd00:188:2::9]:5000"), Remote: a("[fd00:188:1::1]:10002"), State: "TIME_WAIT"},
			{Proto: "raw 254", Local: a("127.0.0.1:0")},
		}},
		{"freebsd/netstat", []evidence.SocketEntry{
			{Proto: "tcp", Local: a("10.189.9.9:80"), Remote: a("10.189.1.2:20042"), State: "TIME_WAIT"},
			{Proto: "divert", Local: a("0.0.0.0:9995")},
		}},
	} {
		var got []evidence.SocketEntry
		err := parseNetstat(netstatSample(t, c.file), func(s evidence.SocketEntry) {
			if s.Text == "" {
				t.Errorf("%s: %+v has no text", c.file, s)
			}
			s.Text = ""
			got = append(got, s)
		})
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
		}
		for _, w := range c.want {
			if !slices.Contains(got, w) {
				t.Errorf("%s: %+v is not among %+v", c.file, w, got)
			}
		}
	}
	if parseNetstat("tcp 0 0 10.1.1.1 *.* LISTEN\n", func(evidence.SocketEntry) {}) == nil {
		t.Error("an address without a port is taken for a socket's")
	}
}

func FuzzNetstat(f *testing.F) {
	for _, name := range []string{"openbsd/netstat", "freebsd/netstat", "openbsd/statistics-after"} {
		f.Add(netstatSample(f, name))
	}
	f.Fuzz(func(t *testing.T, out string) {
		_ = parseNetstat(out, func(evidence.SocketEntry) {})
		parseStatistics(out, map[string]int64{})
	})
}
