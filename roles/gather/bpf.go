package gather

import (
	"encoding/binary"
	"fmt"
	"pfdivert/matrix/evidence"
	"time"
)

// bpfLayout is how a system's bpf(4) lays out what is read from it: packets with a struct
// bpf_hdr before each (net/bpf.h). The reader builds everywhere, so that it is tested everywhere.
type bpfLayout struct {
	// word is the size of each of the two numbers of its time, and what packets are aligned to.
	word int
	// flags is where bh_flags has the packet's direction, 0 where no header tells it.
	flags int
}

// The layouts. OpenBSD's time is a struct bpf_timeval with two numbers of 32 bits, FreeBSD's a
// struct timeval with two longs, of 8 bytes or, on i386, 4.
var openbsdLayout = bpfLayout{word: 4, flags: 22}

func freebsdLayout(long int) bpfLayout { return bpfLayout{word: long} }

// BPF_F_DIR_IN and BPF_F_DIR_OUT of OpenBSD's net/bpf.h.
const (
	bpfFlagIn  = 1 << 4
	bpfFlagOut = 2 << 4
)

// parse returns each packet to take, with its time, length and direction. The data is b's.
func (l bpfLayout) parse(b []byte, take func(evidence.Packet)) error {
	order := binary.NativeEndian
	number := func(b []byte) int64 {
		if l.word == 8 {
			return int64(order.Uint64(b))
		}
		return int64(order.Uint32(b))
	}
	lengths := 2 * l.word // bh_caplen, bh_datalen and bh_hdrlen come behind the time
	least := max(lengths+10, l.flags+1)
	for len(b) > 0 {
		if len(b) < least {
			return fmt.Errorf("bpf: %d bytes where a packet's header should be", len(b))
		}
		captured, head := uint64(order.Uint32(b[lengths:])), uint64(order.Uint16(b[lengths+8:]))
		if head < uint64(least) || head+captured > uint64(len(b)) {
			return fmt.Errorf("bpf: a packet with %d bytes and %d of header in the last %d", captured, head, len(b))
		}
		p := evidence.Packet{
			Time:   time.Unix(number(b), number(b[l.word:])*int64(time.Microsecond)),
			Length: int(order.Uint32(b[lengths+4:])),
			Data:   b[head : head+captured],
		}
		if l.flags != 0 {
			p.Direction = map[byte]string{bpfFlagIn: "in", bpfFlagOut: "out"}[b[l.flags]&(bpfFlagIn|bpfFlagOut)]
		}
		take(p)
		word := uint64(l.word)
		b = b[min((head+captured+word-1)/word*word, uint64(len(b))):]
	}
	return nil
}
