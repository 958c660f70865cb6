package socket

import (
	"encoding/binary"
	"testing"
)

// queuedMessage is what the kernel says of a queue's packet: a struct nfgenmsg and attributes.
func queuedMessage(queue uint16, header []byte, packet string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{2, 0}, queue)
	for kind, data := range map[uint16][]byte{nfqaPacketHdr: header, nfqaPayload: []byte(packet)} {
		b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
		b = append(binary.NativeEndian.AppendUint16(b, kind), data...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

// FuzzQueued: whatever comes, the parsers stay within it.
func FuzzQueued(f *testing.F) {
	f.Add(queuedMessage(7, []byte{0, 0, 0, 1, 8, 0, 3, 0}, "a packet"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, p, ok := parseQueued(b); ok && len(p.packet) > len(b) {
			t.Fatalf("a packet of %d bytes in %d", len(p.packet), len(b))
		}
		_ = errorText(b)
	})
}

func TestParseQueued(t *testing.T) {
	for range 8 { // in either order of attributes
		number, p, ok := parseQueued(queuedMessage(263, []byte{0, 1, 0, 1, 8, 0, 3}, "packet"))
		if number != 263 || !ok || p.id != 65537 || string(p.packet) != "packet" {
			t.Errorf("queue %d, %t, %v", number, ok, p)
		}
	}
	if _, _, ok := parseQueued(queuedMessage(263, []byte{0, 1}, "packet")); ok {
		t.Error("a packet without its id is taken")
	}
}
