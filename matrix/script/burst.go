package script

import (
	"encoding/binary"
	"fmt"
)

// Burst is a row of messages whose content both ends know, so that many and long ones
// need not travel beside the network that is tested. Message n begins with Line, then has
// its number, then bytes that follow from the number.
type Burst struct {
	First int    `json:"first"` // number of the first
	Count int    `json:"count"`
	Size  int    `json:"size"` // bytes of each
	Line  string `json:"line"`
	// Swap has each two neighbours sent the wrong way round, for tests.
	Swap bool `json:"swap,omitempty"`
	// Backwards has the last message first, and the first one last.
	Backwards bool `json:"backwards,omitempty"`
	// Joined has a datagram socket send all of them in one call, of which the kernel makes packets
	// as late as it can (Linux: UDP_SEGMENT, udp(7)).
	Joined bool `json:"joined,omitempty"`
}

// Tally is what was received of a burst.
type Tally struct {
	Count int `json:"count"`
	Bytes int `json:"bytes"`
	// Right counts the messages, from the first on, that were those of the burst, whole
	// and in order. Wrong says what came in place of the next one.
	Right int    `json:"right"`
	Wrong string `json:"wrong,omitempty"`
}

// Bounds of a burst, which may come from another host.
const (
	MaxBurst    = 4096
	burstNumber = 4 // bytes of a message's number
	// maxJoined is UDP_MAX_SEGMENTS (linux/udp.h) of the oldest kernels.
	maxJoined = 64
)

func (b Burst) Validate() error {
	switch {
	case b.First < 0 || b.Count < 1 || b.Count > MaxBurst || b.First > 1<<20:
		return fmt.Errorf("burst of %d messages from number %d on", b.Count, b.First)
	case b.Size < len(b.Line)+burstNumber || b.Size > MaxPacket:
		return fmt.Errorf("burst of messages of %d bytes", b.Size)
	case b.Joined && (b.Count > maxJoined || b.Count*b.Size > MaxPacket-40-8):
		return fmt.Errorf("burst of %d messages of %d bytes in one call", b.Count, b.Size)
	}
	return nil
}

// Message makes the message with the number.
func (b Burst) Message(number int) []byte {
	m := append(make([]byte, 0, b.Size), b.Line...)
	m = binary.BigEndian.AppendUint32(m, uint32(number))
	for x := uint32(number)*2654435761 + 1; len(m) < b.Size; x = x*1664525 + 1013904223 {
		m = append(m, byte(x>>24))
	}
	return m
}

// At makes the message that is the i-th to be sent and received.
func (b Burst) At(i int) []byte {
	if b.Backwards {
		i = b.Count - 1 - i
	}
	return b.Message(b.First + i)
}

// Describe says what a message is that is not the next one of the burst.
func (b Burst) Describe(data []byte) string {
	if n := len(b.Line); len(data) >= n+burstNumber {
		number := binary.BigEndian.Uint32(data[n:])
		return fmt.Sprintf("%d bytes that begin with %q and number %d", len(data), data[:n], number)
	}
	return fmt.Sprintf("%d bytes", len(data))
}

// Rewrite is a replacement in payloads: New, as long as Old, takes its place.
type Rewrite struct {
	Old string `json:"old"`
	New string `json:"new"`
}
