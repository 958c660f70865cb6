package gather

import (
	"fmt"
	"pfdivert/matrix/evidence"
	"slices"
	"sync"
	"time"
)

// A recorder keeps the newest packets of an interface.
type recorder struct {
	mu      sync.Mutex
	packets []evidence.Packet
	size    int   // bytes of packets
	lost    int64 // packets that the system could not keep for us
	// forgot is the time of the newest packet that had to make room.
	forgot time.Time
}

// ringSize bounds what a recorder keeps, in bytes, packets with what Go needs for them.
const ringSize = 4 << 20

// packetOverhead is about what a Packet takes beside its data.
const packetOverhead = 128

// add keeps a packet and forgets the oldest ones if there is no room.
func (r *recorder) add(p evidence.Packet) {
	r.packets = append(r.packets, p)
	r.size += len(p.Data) + packetOverhead
	if r.size <= ringSize {
		return
	}
	drop := 0
	for r.size > ringSize*3/4 { // not one for one: what is left is moved
		r.size -= len(r.packets[drop].Data) + packetOverhead
		r.forgot = r.packets[drop].Time
		drop++
	}
	r.packets = slices.Delete(r.packets, 0, drop)
}

// of returns the packets of a cell that began then. It fails besides when there were older ones
// that are not kept any more.
func (r *recorder) of(a evidence.About, began time.Time) ([]evidence.Packet, error) {
	var some []evidence.Packet
	for _, p := range r.packets {
		if !p.Time.Before(began) && a.Packet(p.IP()) {
			some = append(some, p)
		}
	}
	if r.forgot.After(began) {
		return some, fmt.Errorf("those from before %s made room for newer ones", r.forgot.Format("15:04:05.000000"))
	}
	return some, nil
}

// bound leaves out the middle of too many packets.
func bound(packets []evidence.Packet) []evidence.Packet {
	if len(packets) <= evidence.MaxPackets {
		return packets
	}
	return slices.Concat(packets[:evidence.MaxPackets/2], packets[len(packets)-evidence.MaxPackets/2:])
}
