package socket

import "testing"

// FuzzNetlink: whatever comes, the parsers stay within it.
func FuzzNetlink(f *testing.F) {
	var n netlinkSocket
	n.request(nfqnlPacket, 0, 2, 0, 0, 7)
	n.attribute(nfqaPacketHdr, []byte{0, 0, 0, 1, 8, 0, 3, 0})
	n.attribute(nfqaPayload, []byte("a packet"))
	n.out[0] = byte(len(n.out))
	f.Add(n.out)
	f.Fuzz(func(t *testing.T, b []byte) {
		parseNetlink(b, func(m netlinkMessage) {
			_ = m.acknowledged()
			if _, p, ok := parseQueued(m.body); ok && len(p.packet) > len(b) {
				t.Fatalf("a packet of %d bytes in %d", len(p.packet), len(b))
			}
		})
		_ = errorText(b)
	})
}

func TestParseQueued(t *testing.T) {
	var n netlinkSocket
	n.request(nfqnlPacket, 0, 2, 0, 1, 7)
	n.attribute(nfqaPacketHdr, []byte{0, 1, 0, 1, 8, 0, 3})
	n.attribute(nfqaPayload, []byte("packet"))
	n.out[0] = byte(len(n.out))
	var got []queued
	parseNetlink(append(n.out, n.out...), func(m netlinkMessage) {
		number, p, ok := parseQueued(m.body)
		if number != 263 || !ok || m.typ != nfqnlPacket {
			t.Errorf("queue %d, %t, type %x", number, ok, m.typ)
		}
		got = append(got, p)
	})
	if len(got) != 2 || got[1].id != 65537 || string(got[1].packet) != "packet" {
		t.Errorf("%v", got)
	}
}
