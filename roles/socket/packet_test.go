package socket

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"pfdivert/matrix/script"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// hexLines are the packets in a log of testdata/openbsd: as it came, as it was
// sent on.
func hexLines(t testing.TB, file string) (in, out []byte, log string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		arrow, data, _ := strings.Cut(strings.TrimSpace(line), " ")
		packet, err := hex.DecodeString(data)
		switch {
		// The same packet in quotes, and what getpeername said.
		case err != nil && arrow == "<<<", strings.Contains(line, "getpeername"):
			continue
		case arrow == "<<<":
			in = packet
		case arrow == ">>>":
			out = packet
		}
		log += line
	}
	return in, out, log
}

var packetLogs = []string{"packet-in-inet", "packet-in-inet6", "packet-out-inet", "packet-out-inet6"}

// fakeDiverter returns one packet.
type fakeDiverter struct {
	in, out []byte
	from    netip.AddrPort
}

func (d *fakeDiverter) take(time.Time) ([]byte, netip.AddrPort, error) {
	if d.in == nil {
		return nil, netip.AddrPort{}, ErrNothing
	}
	b := d.in
	d.in = nil
	return b, d.from, nil
}
func (d *fakeDiverter) reinject(b []byte) error { d.out = bytes.Clone(b); return nil }
func (d *fakeDiverter) drop() error             { return nil }
func (d *fakeDiverter) close() error            { return nil }

// TestPacketLog replays what OpenBSD diverted: payload and addresses are
// found, the packet is rewritten as there, and so is the log.
func TestPacketLog(t *testing.T) {
	for _, name := range packetLogs {
		in, out, want := hexLines(t, filepath.Join("testdata/openbsd", name))
		lines := strings.Split(want, "\n")
		f := strings.Fields(lines[1]) // recv from: ADDRESS PORT
		d := &fakeDiverter{in: in, from: netip.AddrPortFrom(netip.MustParseAddr(f[2]), 0)}
		f = strings.Fields(lines[0]) // divert sock: ADDRESS PORT
		var log bytes.Buffer
		e := &divert{log: newTranscript(&log), dev: d, spec: script.Divert{
			Local: netip.AddrPortFrom(netip.MustParseAddr(f[2]), 666),
			Omit:  []script.Piece{script.Checksum}, // OpenBSD's kernel fixes them
		}}
		e.log.address("divert sock", e.spec.Local)
		m, err := e.Receive(Now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(m.Data) != script.ClientLine || m.From.Addr() == m.To.Addr() || m.To.Port() != 4000 {
			t.Errorf("%s: %+v", name, m)
		}
		if _, err := e.Receive(Now); err == nil {
			t.Errorf("%s: received while a packet was held", name)
		}
		if m, err = e.Relay([]byte("Client"), []byte("Packet")); err != nil || string(m.Sent) != script.PacketLine {
			t.Errorf("%s: %+v %v", name, m, err)
		}
		if _, err := e.Relay(nil, nil); err == nil {
			t.Errorf("%s: relayed twice", name)
		}
		if !bytes.Equal(d.out, out) {
			t.Errorf("%s: sent\n%x, want\n%x", name, d.out, out)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, log.String()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestFixChecksums: fixing a right packet changes nothing; fixing one with ruined
// checksums makes it right. (The packets that came in have not got theirs yet:
// they came through virtio.)
func TestFixChecksums(t *testing.T) {
	for _, name := range []string{"packet-out-inet", "packet-out-inet6"} {
		in, _, _ := hexLines(t, filepath.Join("testdata/openbsd", name))
		p, err := parsePacket(bytes.Clone(in))
		if err != nil {
			t.Fatal(err)
		}
		p.fixChecksums()
		if !bytes.Equal(p.raw, in) {
			t.Errorf("%s: fixed\n%x, was\n%x", name, p.raw, in)
		}
		if p.to.Addr().Is4() {
			p.raw[10], p.raw[11] = 0xde, 0xad
		}
		p.raw[p.transport+6], p.raw[p.transport+7] = 0xbe, 0xef
		p.fixChecksums()
		if !bytes.Equal(p.raw, in) {
			t.Errorf("%s: fixed from ruins\n%x, was\n%x", name, p.raw, in)
		}
	}
}

// segments are packets of the other protocols, right ones with right checksums.
func segments(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for name, text := range map[string]string{
		"tcp inet":   "45000034000040004006e5ad 0a1f0001 0a1f0002 1f404e20 00000001 00000002 8018 00ff 0000 0000 0101080a0000000100000002 436c69656e740a",
		"icmp inet":  "450000230000000040010000 0a1f0001 0a1f0002 0800 0000 1234 0001 436c69656e740a",
		"254 inet":   "4500001b0000000040fe0000 0a1f0001 0a1f0002 436c69656e740a",
		"tcp inet6":  "60000000001b0640 fd000188000100000000000000000001 fd000188000100000000000000000002 1f404e20 00000001 00000002 5018 00ff 0000 0000 436c69656e740a",
		"icmp inet6": "60000000000f3a40 fd000188000100000000000000000001 fd000188000100000000000000000002 8000 0000 1234 0001 436c69656e740a",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if b[0]>>4 == 4 {
			b[3] = byte(len(b))
		}
		all[name] = b
	}
	return all
}

// Packets of every protocol can be rewritten, longer and shorter where that makes sense, and
// have right checksums after.
func TestRewrite(t *testing.T) {
	all := segments(t)
	all["udp inet"], _, _ = hexLines(t, "testdata/openbsd/packet-in-inet")
	all["udp inet6"], _, _ = hexLines(t, "testdata/openbsd/packet-in-inet6")
	for name, in := range all {
		for _, line := range []string{"Packet\n", "Parcel post\n", "Pkt\n"} {
			p, err := parsePacket(bytes.Clone(in))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
			if string(p.payload()) != script.ClientLine {
				t.Errorf("%s: payload %q", name, p.payload())
			}
			err = p.replace([]byte(script.ClientLine), []byte(line))
			if strings.HasPrefix(name, "tcp") && len(line) != len(script.ClientLine) {
				if err == nil {
					t.Errorf("%s: TCP's payload became %q", name, line)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			p.fixChecksums()
			q, err := parsePacket(p.raw)
			if err != nil || string(q.payload()) != line || q.from != p.from ||
				len(q.raw) != len(in)+len(line)-len(script.ClientLine) || !right(q) {
				t.Errorf("%s: %q: %x: %v", name, line, p.raw, err)
			}
			q.spoil(script.CorruptAll)
			if q.proto != 254 && right(q) || q.to.Addr().Is4() && checksum(sum(0, q.raw[:q.transport])) == 0 {
				t.Errorf("%s: spoilt: %x", name, q.raw)
			}
			from, to := q.from, q.to
			q.turn()
			q.fixChecksums()
			q, err = parsePacket(q.raw)
			if err != nil || q.from != to || q.to != from || !right(q) {
				t.Errorf("%s: turned round: %x %v", name, q.raw, err)
			}
		}
	}
}

// TestSpoilNever0: a checksum of UDP that was made wrong is never 0, which would be none at all.
func TestSpoilNever0(t *testing.T) {
	in, _, _ := hexLines(t, "testdata/openbsd/packet-in-inet")
	p, err := parsePacket(bytes.Clone(in))
	if err != nil {
		t.Fatal(err)
	}
	at, _ := p.checksumAt()
	for n := range 1 << 16 {
		binary.BigEndian.PutUint16(p.payload(), uint16(n))
		p.fixChecksums()
		if binary.BigEndian.Uint16(p.raw[at:]) != 0x5500 {
			continue
		}
		p.spoil(script.CorruptAll)
		if binary.BigEndian.Uint16(p.raw[at:]) == 0 || right(p) {
			t.Errorf("%x", p.raw)
		}
		return
	}
	t.Fatal("no payload has the checksum 0x5500")
}

// right reports whether both checksums are.
func right(p *packet) bool {
	if p.to.Addr().Is4() && checksum(sum(0, p.raw[:p.transport])) != 0 {
		return false
	}
	at, pseudo := p.checksumAt()
	var start uint32
	if pseudo {
		start = pseudoSum(p.from.Addr(), p.to.Addr(), p.proto, len(p.raw)-p.transport)
	}
	return at < 0 || checksum(sum(start, p.raw[p.transport:])) == 0
}

func TestParsePacket(t *testing.T) {
	all := segments(t)
	cut := func(name string, n int) []byte { return all[name][:n] }
	fragment := bytes.Clone(all["254 inet"])
	fragment[6] = 0x20
	extension := bytes.Clone(all["icmp inet6"])
	extension[6] = 44
	offset := bytes.Clone(all["tcp inet6"])
	offset[40+12] = 0x40
	long := bytes.Clone(all["tcp inet6"])
	long[40+12] = 0xf0
	for name, b := range map[string][]byte{
		"nothing": nil, "version 5": {0x50, 0}, "header of TCP cut": cut("tcp inet", 39),
		"IPv6 cut": cut("tcp inet6", 39), "IPv6 payload cut": cut("icmp inet6", 50),
		"fragment": fragment, "extension header": extension, "TCP's header too short": offset,
		"TCP's header too long": long,
	} {
		if p, err := parsePacket(b); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func FuzzPacket(f *testing.F) {
	for _, name := range packetLogs {
		in, out, _ := hexLines(f, filepath.Join("testdata/openbsd", name))
		f.Add(in)
		f.Add(out)
		f.Add(in[:30])
		f.Add(append(in, 0))
	}
	for _, b := range segments(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		was := bytes.Clone(b)
		p, err := parsePacket(b)
		if err != nil {
			return
		}
		if len(p.raw) > len(b) || p.from.Addr().Is4() != p.to.Addr().Is4() {
			t.Fatalf("%d bytes of %d, %v to %v", len(p.raw), len(b), p.from, p.to)
		}
		n := len(p.payload())
		if err := p.replace([]byte("Client"), []byte("Packet")); err != nil {
			t.Fatal(err)
		}
		p.fixChecksums()
		// Everything but payload and checksums is as it was, and what is now a
		// right packet stays so.
		q, err := parsePacket(p.raw)
		if err != nil || q.from != p.from || q.to != p.to || len(q.payload()) != n {
			t.Fatalf("%+v became %+v: %v", p, q, err)
		}
		again := bytes.Clone(p.raw)
		q.fixChecksums()
		if !bytes.Equal(again, q.raw) || !bytes.Equal(b[len(p.raw):], was[len(p.raw):]) {
			t.Fatalf("%x became %x", again, q.raw)
		}
	})
}

func FuzzIPv4(f *testing.F) {
	in, _, _ := hexLines(f, "testdata/openbsd/packet-in-inet")
	f.Add(in)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseIPv4(b)
		if err == nil {
			_ = b[h.size:h.total] // must not panic
		}
	})
}

func FuzzPrintable(f *testing.F) {
	f.Add([]byte("Client\n"))
	f.Add([]byte("a\x1b[2J\r\n>>> Server\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := appendPrintable(nil, b)
		if len(got) > 4*maxLogged+3 {
			t.Fatalf("%d bytes", len(got))
		}
		for _, c := range got {
			if c < ' ' || c > '~' {
				t.Fatalf("%q", got)
			}
		}
	})
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"Client\n":               "Client",
		"a\x1b[2J\r\nb\\\xff\n":  `a\x1b[2J\x0d\nb\\\xff`,
		strings.Repeat("x", 300): strings.Repeat("x", 256) + "...",
	} {
		if got := string(appendPrintable(nil, []byte(in))); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// turningDiverter notes which way a packet is to go.
type turningDiverter struct {
	fakeDiverter
	way netip.Addr
}

func (d *turningDiverter) turn(in netip.Addr) { d.way = in }

// TestTurn: a packet is made an answer to itself, with right checksums, and goes the way that is
// asked for.
func TestTurn(t *testing.T) {
	for name, in := range segments(t) {
		d := &turningDiverter{fakeDiverter: fakeDiverter{in: in}}
		e := &divert{log: newTranscript(nil), dev: d,
			spec: script.Divert{Local: netip.MustParseAddrPort("0.0.0.0:666")}}
		way := netip.MustParseAddr("10.188.1.2")
		if err := Turn(e, nil, nil, way); err == nil {
			t.Errorf("%s: turned a packet that there is not", name)
		}
		m, err := e.Receive(Now)
		if err != nil {
			t.Fatal(err)
		}
		if err := Turn(e, []byte(script.ClientLine), []byte(script.PacketLine), way); err != nil {
			t.Fatal(err)
		}
		q, err := parsePacket(d.out)
		if err != nil || q.from != m.To || q.to != m.From || string(q.payload()) != script.PacketLine ||
			d.way != way || !kernelFixesChecksums && !right(q) {
			t.Errorf("%s: %x by %v: %v", name, d.out, d.way, err)
		}
		if err := Turn(e, nil, nil, way); err == nil {
			t.Errorf("%s: turned twice", name)
		}
	}
	e := &divert{log: newTranscript(nil), dev: &fakeDiverter{in: segments(t)["254 inet"]}}
	if _, err := e.Receive(Now); err != nil {
		t.Fatal(err)
	}
	if err := Turn(e, nil, nil, netip.Addr{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a queue turned a packet: %v", err)
	}
}

// namingDiverter says by which interface packets come.
type namingDiverter struct{ fakeDiverter }

func (*namingDiverter) interfaceName() string { return "em0" }

// Each header that is spoilt is wrong in that alone.
func TestSpoilHeader(t *testing.T) {
	for name, in := range segments(t) {
		for _, which := range []script.Corruption{script.CorruptVersion, script.CorruptLength, script.CorruptShort,
			script.CorruptBeyond} {
			if which == script.CorruptBeyond && in[0]>>4 == 6 {
				continue
			}
			d := &namingDiverter{fakeDiverter{in: bytes.Clone(in)}}
			e := &divert{log: newTranscript(nil), dev: d, spec: script.Divert{Corrupt: which}}
			m, err := e.Receive(Now)
			if err != nil || m.Interface != "em0" {
				t.Fatalf("%s: %+v, %v", name, m, err)
			}
			if _, err := e.Relay(nil, nil); err != nil {
				t.Fatalf("%s %s: %v", name, which, err)
			}
			out := d.out
			at, more := 4, 40
			if in[0]>>4 == 4 {
				at, more = 2, 0
			}
			length := int(binary.BigEndian.Uint16(out[at:])) + more
			switch {
			case which == script.CorruptShort && len(out) != 19, which != script.CorruptShort && len(out) != len(in),
				(which == script.CorruptVersion) != (out[0]>>4 == 5),
				(which == script.CorruptBeyond) != (in[0]>>4 == 4 && out[0]&0xf == 0xf),
				(which == script.CorruptLength) != (length > len(in)+more):
				t.Errorf("%s %s: %x of %x", name, which, out, in)
			case which != script.CorruptShort && which != script.CorruptBeyond && more == 0 &&
				checksum(sum(0, out[:20])) != 0:
				t.Errorf("%s %s: the header's checksum is wrong too: %x", name, which, out)
			}
		}
	}
}

// A fragment is taken for what it is, and can't be relayed.
func TestPieces(t *testing.T) {
	all := segments(t)
	first := bytes.Clone(all["254 inet"])
	first[6] = 0x20
	last := bytes.Clone(all["254 inet"])
	last[7] = 3
	whole := bytes.Clone(all["icmp inet6"])
	whole[6] = 254
	whole = append(whole[:40], whole[48:]...) // without ICMP's header
	whole[5] = byte(len(whole) - 40)
	first6 := append(bytes.Clone(whole[:40]), 254, 0, 0, 1, 0, 0, 0, 7)
	first6 = append(first6, whole[40:]...)
	first6[6] = 44
	binary.BigEndian.PutUint16(first6[4:], uint16(len(first6)-40))
	for name, b := range map[string][]byte{"first": first, "last": last, "whole": all["254 inet"],
		"whole inet6": whole, "inet6": first6} {
		e := &divert{log: newTranscript(nil), dev: &fakeDiverter{in: b}, spec: script.Divert{Fragments: true}}
		m, err := e.Receive(Now)
		if err != nil || string(m.Data) != script.ClientLine || m.From.Port() != 0 || !m.From.IsValid() ||
			!m.To.IsValid() {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		if _, err := e.Relay(nil, nil); err == nil {
			t.Errorf("%s: a piece was relayed", name)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "version 5": {0x50, 0}, "cut": first[:len(first)-1], "IPv6 cut": first6[:len(first6)-1],
		"IPv6 header cut":    first6[:39],
		"no fragment header": append(bytes.Clone(first6[:4]), append([]byte{0, 7, 44, 1}, first6[8:47]...)...),
	} {
		if p, err := parsePiece(b); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// What a system's packet role can't do is refused, not left out.
func TestUnable(t *testing.T) {
	all := abilities{read: true, recv: true, writeTo: true, drop: true, share: true}
	for name, s := range map[string]script.Divert{
		"read": {Call: script.Read}, "recv": {Call: script.Recv},
		"writeTo": {WriteTo: netip.MustParseAddr("192.0.2.1")}, "drop": {Unprivileged: true}, "share": {Shared: true},
	} {
		if err := (abilities{}).unable(s); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
		if err := all.unable(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := all.unable(script.Divert{Call: "telepathy"}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an unknown call: %v", err)
	}
	if err := (abilities{}).unable(script.Divert{}); err != nil {
		t.Error(err)
	}
}
