package gather

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"

	"pfdivert/pfconf"
)

// Filter says which packets are captured. A host's interface has others, too: the connection
// of the run's own orchestrator, which a capture must not feed on, and the echoes of its fences.
type Filter struct {
	// Cells are prefixes whose packets are all captured: FAKE, and LOCAL where
	// each cell has its own.
	Cells []netip.Prefix
	// Pairs are the hosts' real addresses. Between them all is captured but TCP and ICMP echoes.
	Pairs [][2]netip.Addr
}

// snapLength is how much of a packet is kept, in bytes: the headers, and a test's whole payload.
const snapLength = 384

// Offsets in IP headers: RFC 791 and RFC 8200.
var ipFields = map[pfconf.Family]struct {
	version               uint32 // of the first byte's upper half
	protocol, source, end uint32
	icmp                  uint32
	echoes                []uint32
}{
	pfconf.Inet:  {0x40, 9, 12, 20, uint32(pfconf.ICMP.Number(pfconf.Inet)), []uint32{0, 8}},
	pfconf.Inet6: {0x60, 6, 8, 40, uint32(pfconf.ICMP.Number(pfconf.Inet6)), []uint32{128, 129}},
}

// program is the filter as a classic BPF program for packets whose IP header begins at the
// offset. It keeps snapLength bytes of the packets that it accepts, where the system looks at that.
func (f Filter) program(offset uint32) ([]bpf.RawInstruction, error) {
	var all []bpf.Instruction
	for _, family := range pfconf.Families {
		fields := ipFields[family]
		size := (fields.end - fields.source) / 2
		source, destination := offset+fields.source, offset+fields.source+size
		var body []bpf.Instruction
		for _, p := range f.Cells {
			if pfconf.FamilyOf(p.Addr()) != family {
				continue
			}
			for _, at := range []uint32{source, destination} {
				body = append(body, when(prefixTest(at, p), accepted)...)
			}
		}
		for _, pair := range f.Pairs {
			if pfconf.FamilyOf(pair[0]) != family {
				continue
			}
			for i := range pair {
				test := append(prefixTest(source, single(pair[i])), prefixTest(destination, single(pair[1-i]))...)
				body = append(body, when(test, f.notControl(offset, family))...)
			}
		}
		body = append(body, bpf.RetConstant{})
		test := []bpf.Instruction{bpf.LoadAbsolute{Off: offset, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0}, equal(fields.version)}
		all = append(all, when(test, body)...)
	}
	return bpf.Assemble(append(all, bpf.RetConstant{}))
}

var accepted = []bpf.Instruction{bpf.RetConstant{Val: snapLength}}

// notControl accepts what is neither TCP nor an echo.
func (f Filter) notControl(offset uint32, family pfconf.Family) []bpf.Instruction {
	fields := ipFields[family]
	protocol := bpf.LoadAbsolute{Off: offset + fields.protocol, Size: 1}
	refused := []bpf.Instruction{bpf.RetConstant{}}
	all := when([]bpf.Instruction{protocol, equal(uint32(pfconf.TCP.Number(family)))}, refused)
	for _, echo := range fields.echoes {
		all = append(all, when([]bpf.Instruction{
			protocol, equal(fields.icmp), bpf.LoadAbsolute{Off: offset + fields.end, Size: 1}, equal(echo),
		}, refused)...)
	}
	return append(all, accepted...)
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// prefixTest tests the address at the offset.
func prefixTest(at uint32, p netip.Prefix) []bpf.Instruction {
	var test []bpf.Instruction
	bytes := p.Masked().Addr().AsSlice()
	for i, bits := 0, p.Bits(); bits > 0; i, bits = i+4, bits-32 {
		test = append(test, bpf.LoadAbsolute{Off: at + uint32(i), Size: 4})
		if bits < 32 {
			test = append(test, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(0) << (32 - bits)})
		}
		test = append(test, equal(binary.BigEndian.Uint32(bytes[i:])))
	}
	return test
}

// equal is a test that when completes: what follows is reached when it holds.
func equal(v uint32) bpf.Instruction { return bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v} }

// when is the body, which is passed over unless all tests hold.
func when(tests, body []bpf.Instruction) []bpf.Instruction {
	var all []bpf.Instruction
	left := len(tests) // with the Jumps that are put in
	for _, t := range tests {
		if _, ok := t.(bpf.JumpIf); ok {
			left++
		}
	}
	for _, t := range tests {
		left--
		j, ok := t.(bpf.JumpIf)
		if !ok {
			all = append(all, t)
			continue
		}
		// A conditional jump does not reach as far as a body can be long.
		j.SkipFalse = 1
		left--
		all = append(all, j, bpf.Jump{Skip: uint32(left + len(body))})
	}
	return append(all, body...)
}
