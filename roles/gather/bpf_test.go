package gather

import (
	"encoding/binary"
	"os"
	"pfdivert/matrix/evidence"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestParseBpf reads what /dev/bpf gave on amd64.
func TestParseBpf(t *testing.T) {
	for _, c := range []struct {
		file   string
		layout bpfLayout
		link   evidence.LinkType
		want   []string
	}{
		{"openbsd/bpf-ethernet", openbsdLayout, evidence.LinkEthernet, []string{
			"Nov 22 06:30:48.694000 in  10.188.1.1:13601 10.188.13.6:25601 TCP SYN",
			"Nov 22 06:30:48.694035 in  [fd00:188:1::1]:13620 [fd00:188:13::19]:25620 TCP SYN",
			"Nov 22 06:30:48.696079 out  10.188.13.6:25601 10.188.1.1:13601 TCP SYN ACK",
			"Nov 22 06:30:48.696090 out  [fd00:188:13::19]:25620 [fd00:188:1::1]:13620 TCP SYN ACK",
			"Nov 22 06:30:48.783706 in  10.188.1.1:13601 10.188.13.6:25601 TCP ACK",
			"Nov 22 06:30:48.783722 in  [fd00:188:1::1]:13620 [fd00:188:13::19]:25620 TCP ACK",
		}},
		{"openbsd/bpf-pflog", openbsdLayout, evidence.LinkPflog, []string{
			"Nov 22 06:30:48.694817 out pass in on vio1, rule 1.regress.12 10.188.1.1:13601 10.188.13.6:25601 TCP SYN",
			"Nov 22 06:30:48.695057 out pass in on vio1, rule 1.regress.15 [fd00:188:1::1]:13620 [fd00:188:13::19]:25620 TCP SYN",
		}},
		{"freebsd/bpf-ethernet", freebsdLayout(8), evidence.LinkEthernet, []string{
			"Nov 22 06:30:43.025807   [fd00:189:1::1]:30140 [fd00:189:13::11]:27510 TCP SYN ACK",
			"Nov 22 06:30:43.057750   10.189.1.1:30127 10.189.13.4:62241 TCP SYN ACK",
		}},
	} {
		b, err := os.ReadFile("testdata/" + c.file)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		err = c.layout.parse(b, func(p evidence.Packet) {
			p.Link = c.link
			d := evidence.Decode(p)
			if len(p.Data) != p.Length {
				t.Errorf("%s: %d bytes of %d", c.file, len(p.Data), p.Length)
			}
			got = append(got, p.Time.UTC().Format(
				time.StampMicro)+" "+p.Direction+" "+d.Pflog+" "+d.From()+" "+d.To()+" "+d.Summary)
		})
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.file, d)
		}
		// Whatever a read is cut off at, no packet is taken that is not whole.
		for n := range b {
			count := 0
			if err := c.layout.parse(b[:n], func(evidence.Packet) { count++ }); count > len(got) || n > 0 &&
				count == 0 && err == nil {
				t.Errorf("%s: %d packets in %d bytes, %v", c.file, count, n, err)
			}
		}
	}
}

// TestParseBpfBad: lengths that can't be are errors.
func TestParseBpfBad(t *testing.T) {
	header := func(captured uint32, head uint16) []byte {
		b := make([]byte, 64)
		binary.NativeEndian.PutUint32(b[8:], captured)
		binary.NativeEndian.PutUint16(b[16:], head)
		return b
	}
	for _, c := range []struct {
		b    []byte
		good bool
	}{
		{header(40, 24), true},
		{header(41, 24), false},
		{header(1<<32-1, 24), false},
		{header(0, 22), false},
		{header(0, 0), false},
		{header(0, 65), false},
		{header(0, 24)[:20], false},
	} {
		if err := openbsdLayout.parse(c.b, func(evidence.Packet) {}); (err == nil) != c.good {
			t.Errorf("%x: %v", c.b[8:18], err)
		}
	}
}

func FuzzParseBpf(f *testing.F) {
	for _, name := range []string{"openbsd/bpf-ethernet", "openbsd/bpf-pflog", "freebsd/bpf-ethernet"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, l := range []bpfLayout{openbsdLayout, freebsdLayout(4), freebsdLayout(8)} {
			size := 0
			_ = l.parse(b, func(p evidence.Packet) { size += len(p.Data) })
			if size > len(b) {
				t.Errorf("%d bytes of packets in %d", size, len(b))
			}
		}
	})
}
