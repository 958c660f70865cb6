package evidence

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"unicode"
)

// unhex reads hex with spaces.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	ethernet4 = "02000000000102000000000208 00"
	ethernet6 = "020000000001020000000002 86dd"
	flow6     = "fd000188000300000000000000000002 fd000188000200000000000000000002"
	ports     = "3c9a 6b7a" // 15514, 27514
	udp       = ports + "000f abcd 436c69656e740a"
)

// packets have a header of each kind that is read.
var packets = []struct {
	name, data string
	link       LinkType
	want       Decoded // Same is not compared
	payload    string
}{
	{"udp", ethernet4 + "4500 0023 1234 0000 40 11 0000 0ac00002 0ad00002" + udp + "0000 0000", LinkEthernet,
		Decoded{Summary: "UDP, 7 bytes"}, "Client\n"},
	{"vlan", "020000000001020000000002 8100 0005 0800" + "4500 0023 1234 0000 40 11 0000 0ac00002 0ad00002" + udp,
		LinkEthernet, Decoded{Summary: "UDP, 7 bytes"}, "Client\n"},
	{"udp6 raw", "60000000 000f 11 40" + flow6 + udp, LinkRaw, Decoded{Summary: "UDP, 7 bytes"}, "Client\n"},
	{"syn", "4500 0028 1234 0000 40 06 0000 0ac00002 0ad00002" + ports + "00000001 00000000 5002 ffff 0000 0000",
		LinkRaw, Decoded{Summary: "TCP SYN"}, ""},
	{"tcp data, cut off", "4500 05dc 1234 0000 40 06 0000 0ac00002 0ad00002" + ports +
		"00000001 00000000 5018 ffff 0000 0000 414243", LinkRaw, Decoded{Summary: "TCP PSH ACK, 1460 bytes"}, "ABC"},
	{"rst", "4500 0028 1234 0000 40 06 0000 0ac00002 0ad00002" + ports + "00000001 00000000 5014 ffff 0000 0000",
		LinkRaw, Decoded{Summary: "TCP RST ACK"}, ""},
	{"options", "4600 0027 1234 0000 40 11 0000 0ac00002 0ad00002 94040000" + udp, LinkRaw,
		Decoded{Summary: "UDP, 7 bytes"}, "Client\n"},
	{"echo", "4500 0020 1234 0000 40 01 0000 0ac00002 0ad00002 0800 0000 0007 0001 61626364", LinkRaw,
		Decoded{Summary: "ICMP echo request, id 7, seq 1"}, "abcd"},
	{"echo reply", "4500 001c 1234 0000 40 01 0000 0ac00002 0ad00002 0000 0000 0007 0001", LinkRaw,
		Decoded{Summary: "ICMP echo reply, id 7, seq 1"}, ""},
	{"unreachable", "4500 001c 1234 0000 40 01 0000 0ac00002 0ad00002 0303 0000 00000000", LinkRaw,
		Decoded{Summary: "ICMP port unreachable"}, ""},
	{"echo6", "60000000 0008 3a 40" + flow6 + "8000 0000 0007 0001", LinkRaw,
		Decoded{Summary: "ICMPv6 echo request, id 7, seq 1"}, ""},
	{"unreachable6", "60000000 0008 3a 40" + flow6 + "0104 0000 00000000", LinkRaw,
		Decoded{Summary: "ICMPv6 port unreachable"}, ""},
	{"neighbour", ethernet6 + "60000000 0008 3a ff" + flow6 + "8700 0000 00000000", LinkEthernet,
		Decoded{Summary: "ICMPv6 neighbour solicitation"}, ""},
	{"254", "4500 001b 1234 0000 40 fe 0000 0ac00002 0ad00002 436c69656e740a", LinkRaw,
		Decoded{Summary: "IP protocol 254, 7 bytes"}, "Client\n"},
	{"gre", "4500 0018 1234 0000 40 2f 0000 0ac00002 0ad00002 00000800", LinkRaw,
		Decoded{Summary: "IP protocol 47, 4 bytes"}, "\x00\x00\x08\x00"},
	{"extension", "60000000 0017 00 40" + flow6 + "1100 0104 00000000" + udp, LinkRaw,
		Decoded{Summary: "UDP, 7 bytes"}, "Client\n"},
	{"fragment6", "60000000 0017 2c 40" + flow6 + "1100 0001 00000007" + udp, LinkRaw,
		Decoded{Summary: "UDP, 7 bytes, the first fragment"}, "Client\n"},
	{"fragment", "4500 0018 1234 2002 40 11 0000 0ac00002 0ad00002 41424344", LinkRaw,
		Decoded{Summary: "fragment of protocol 17 at 16, 4 bytes, more follow"}, "ABCD"},
	{"arp", "ffffffffffff020000000002 0806 0001 0800 06 04 0001 020000000002 0abc0101 000000000000 0abc0102",
		LinkEthernet, Decoded{Summary: "ARP: who has 10.188.1.2? tell 10.188.1.1"}, ""},
	{"lldp", "ffffffffffff020000000002 88cc 00000000", LinkEthernet, Decoded{Summary: "Ethernet type 0x88cc, 4 bytes"},
		""},
	// As OpenBSD 7.7 logs what a rule in an anchor passes: the header has 100 bytes.
	{"pflog", "64 02 00 00 76696f30000000000000000000000000 72656772657373000000000000000000 00000002 00000001" +
		strings.Repeat("00", 16) + "01 00 02 00" + strings.Repeat("00", 36) +
		"4500 0023 1234 0000 40 11 0000 0ac00002 0ad00002" + udp, LinkPflog,
		Decoded{Summary: "UDP, 7 bytes", Pflog: "pass in on vio0, rule 2.regress.1"}, "Client\n"},
	{"pflog, FreeBSD", "3d 02 01 00 76746e65743000000000000000000000 00000000000000000000000000000000 00000003 ffffffff" +
		strings.Repeat("00", 16) + "02 000000" + "4500 0023 1234 0000 40 11 0000 0ac00002 0ad00002" + udp, LinkPflog,
		Decoded{Summary: "UDP, 7 bytes", Pflog: "block out on vtnet0, rule 3"}, "Client\n"},
}

func TestDecode(t *testing.T) {
	for _, c := range packets {
		data := unhex(t, c.data)
		d := Decode(Packet{Link: c.link, Data: data, Length: len(data)})
		if d.Summary != c.want.Summary || d.Pflog != c.want.Pflog || string(d.Payload) != c.payload {
			t.Errorf("%s: %q %q %q, want %q %q %q", c.name, d.Summary, d.Pflog, d.Payload, c.want.Summary,
				c.want.Pflog, c.payload)
		}
		from, to := d.From(), d.To()
		switch {
		case strings.HasPrefix(d.Summary, "ARP"), strings.HasPrefix(d.Summary, "Ethernet"):
			if from+to != "" {
				t.Errorf("%s: has addresses %s %s", c.name, from, to)
			}
		case strings.HasPrefix(d.Summary, "UDP"), strings.HasPrefix(d.Summary, "TCP"):
			if from != "10.192.0.2:15514" && from != "[fd00:188:3::2]:15514" || to != "10.208.0.2:27514" &&
				to != "[fd00:188:2::2]:27514" {
				t.Errorf("%s: from %s to %s", c.name, from, to)
			}
		default:
			if from != "10.192.0.2" && from != "fd00:188:3::2" || to != "10.208.0.2" && to != "fd00:188:2::2" {
				t.Errorf("%s: from %s to %s", c.name, from, to)
			}
		}
	}
}

// TestDecodeSame: what a packet is known by does not change on its way, and changes with
// all else.
func TestDecodeSame(t *testing.T) {
	const packet = "4500 0023 1234 0000 40 11 5678 0ac00002 0ad00002" + udp
	same := func(data string, link LinkType) string { return Decode(Packet{Link: link, Data: unhex(t, data)}).Same }
	want := same(packet, LinkRaw)
	for _, other := range []string{strings.Replace(packet, " 40 11 5678", " 3f 11 abcd", 1),
		strings.Replace(packet, "abcd", "0000", 1)} {
		if same(other, LinkRaw) != want {
			t.Errorf("%s is taken for another packet", other)
		}
	}
	if same(ethernet4+packet+"000000", LinkEthernet) != want {
		t.Error("Ethernet's header makes another packet")
	}
	for _, change := range [][2]string{{"1234 0000", "1235 0000"}, {"0ac00002", "0ac00003"}, {"3c9a", "3c9b"},
		{"436c", "436d"}, {" 11 ", " 12 "}} {
		if same(strings.Replace(packet, change[0], change[1], 1), LinkRaw) == want {
			t.Errorf("with %s in place of %s it is the same packet", change[1], change[0])
		}
	}
}

// TestDecodeCut: a packet that is cut off anywhere is no reason to fail, and nothing is read
// behind its end.
func TestDecodeCut(t *testing.T) {
	for _, c := range packets {
		data := unhex(t, c.data)
		for n := range data {
			check(t, Packet{Link: c.link, Data: data[:n:n], Length: len(data)})
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range packets {
		f.Add(unhex(f, c.data), uint16(c.link), 100)
	}
	f.Add([]byte(nil), uint16(0), -1)
	f.Fuzz(func(t *testing.T, data []byte, link uint16, length int) {
		for _, l := range []LinkType{LinkType(link), LinkEthernet, LinkRaw, LinkPflog} {
			check(t, Packet{Link: l, Data: data, Length: length})
		}
	})
}

// check holds that a packet's texts are printable and short, and its payload is a part of
// it.
func check(t *testing.T, p Packet) {
	t.Helper()
	d := Decode(p)
	for _, text := range []string{d.Summary, d.Pflog, d.From(), d.To()} {
		if len(text) > 100 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%+v: text %q", p, text)
		}
	}
	if d.Summary == "" || !bytes.Contains(p.Data, d.Payload) {
		t.Errorf("%+v: %+v", p, d)
	}
}
