package socket

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

// echoReply is an ICMPv4 or ICMPv6 echo reply as a raw socket gives it. The
// checksum is the kernel's matter.
func echoReply(v6 bool, id, seq uint16, data []byte) []byte {
	b := []byte{0, 0, 0, 0}
	if v6 {
		b[0] = 129
	}
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, seq)
	b = append(b, data...)
	if v6 {
		return b
	}
	header := make([]byte, 24) // with 4 bytes of options
	header[0] = 0x46
	return append(header, b...)
}

func TestFenceMatch(t *testing.T) {
	sent := binary.BigEndian.AppendUint64(nil, uint64(time.Since(fenceEpoch)))
	for _, c := range []struct {
		name       string
		first, now uint16 // requests under way
		id, seq    uint16
		data       []byte
		want       bool
	}{
		{"reply", 5, 5, 7, 5, sent, true},
		{"of the first of three", 5, 7, 7, 5, sent, true},
		{"of the last of three", 5, 7, 7, 7, sent, true},
		{"of an earlier wave", 5, 7, 7, 4, sent, false},
		{"of a request not sent yet", 5, 7, 7, 8, sent, false},
		{"after the numbers wrapped", 65535, 1, 7, 0, sent, true},
		{"of before they wrapped", 65535, 1, 7, 65534, sent, false},
		{"another's", 5, 5, 8, 5, sent, false},
		{"short", 5, 5, 7, 5, sent[:7], false},
		{"long", 5, 5, 7, 5, append(sent[:8:8], 0), false},
	} {
		for _, v6 := range []bool{false, true} {
			f := &Fencer{v6: v6, id: 7, seq: c.now}
			if got := f.match(echoReply(v6, c.id, c.seq, c.data), c.first); got != c.want {
				t.Errorf("%s (IPv6 %v): %v", c.name, v6, got)
			}
		}
	}
	request := echoReply(true, 7, 5, sent)
	request[0] = 128
	if (&Fencer{v6: true, id: 7, seq: 5}).match(request, 5) {
		t.Error("took a request for a reply")
	}
}

// Whatever a host sends, it is a reply or none, and its time within bounds.
func FuzzFenceMatch(f *testing.F) {
	f.Add(false, echoReply(false, 7, 5, bytes.Repeat([]byte{0xff}, 8)))
	f.Add(true, echoReply(true, 7, 5, make([]byte, 8)))
	f.Add(false, []byte{0x4f})
	f.Add(false, []byte{})
	f.Fuzz(func(t *testing.T, v6 bool, b []byte) {
		fence := &Fencer{v6: v6, id: 7, seq: 5}
		fence.match(b, 5)
		if fence.rtt < 0 || fence.rtt > fenceTimeout {
			t.Errorf("round trip of %v", fence.rtt)
		}
	})
}
