package gather

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// ipPacket builds the beginning of a packet; data comes behind the IP header.
func ipPacket(proto int, from, to string, data ...byte) []byte {
	source, dest := netip.MustParseAddr(from), netip.MustParseAddr(to)
	var b []byte
	if source.Is4() {
		b = append(b, 0x45, 0, 0, byte(20+len(data)), 0, 0, 0, 0, 64, byte(proto), 0, 0)
	} else {
		b = append(b, 0x60, 0, 0, 0, 0, byte(len(data)), byte(proto), 64)
	}
	b = append(append(b, source.AsSlice()...), dest.AsSlice()...)
	return append(b, data...)
}

func portPair(source, dest uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, source)
	return append(binary.BigEndian.AppendUint16(b, dest), 0, 8, 0, 0)
}

// TestFilter runs the filter's program as a kernel would.
func TestFilter(t *testing.T) {
	f := Filter{
		Cells: []netip.Prefix{netip.MustParsePrefix("10.208.0.0/12"), netip.MustParsePrefix("fd00:188:2::/64"),
			netip.MustParsePrefix("192.0.2.9/32")},
		Pairs: [][2]netip.Addr{
			{netip.MustParseAddr("10.77.1.1"), netip.MustParseAddr("10.77.1.2")},
			{netip.MustParseAddr("fd00:77:1::1"), netip.MustParseAddr("fd00:77:1::2")},
		},
	}
	for _, offset := range []uint32{0, evidence.EthernetHeader} {
		raw, err := f.program(offset)
		if err != nil {
			t.Fatal(err)
		}
		program, ok := bpf.Disassemble(raw)
		if !ok {
			t.Fatal("the program can't be read back")
		}
		vm, err := bpf.NewVM(program)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			proto    int
			from, to string
			data     []byte
			want     bool
		}{
			{17, "10.192.0.1", "10.223.255.254", portPair(1, 2), true},
			{6, "10.208.0.1", "10.1.1.1", portPair(1, 2), true},
			{17, "10.192.0.1", "10.224.0.1", portPair(1, 2), false},
			{17, "192.0.2.9", "192.0.2.1", portPair(1, 2), true},
			{17, "192.0.2.8", "192.0.2.1", portPair(1, 2), false},
			{17, "10.77.1.1", "10.77.1.2", portPair(1, 2), true},
			{17, "10.77.1.2", "10.77.1.1", portPair(1, 2), true},
			{17, "10.77.1.1", "10.77.1.3", portPair(1, 2), false},
			{6, "10.77.1.1", "10.77.1.2", portPair(40000, 22), false},
			{1, "10.77.1.1", "10.77.1.2", []byte{8, 0, 0, 0}, false},
			{1, "10.77.1.2", "10.77.1.1", []byte{0, 0, 0, 0}, false},
			{1, "10.77.1.2", "10.77.1.1", []byte{3, 3, 0, 0}, true},
			{254, "10.77.1.2", "10.77.1.1", []byte{8, 0, 0, 0}, true},
			{17, "fd00:188:3::1", "fd00:188:2::7", portPair(1, 2), true},
			{17, "fd00:188:3::1", "fd00:188:4::7", portPair(1, 2), false},
			{17, "fd00:77:1::1", "fd00:77:1::2", portPair(1, 2), true},
			{6, "fd00:77:1::1", "fd00:77:1::2", portPair(1, 22), false},
			{58, "fd00:77:1::1", "fd00:77:1::2", []byte{128, 0, 0, 0}, false},
			{58, "fd00:77:1::1", "fd00:77:1::2", []byte{129, 0, 0, 0}, false},
			{58, "fd00:77:1::2", "fd00:77:1::1", []byte{1, 4, 0, 0}, true},
		} {
			packet := append(make([]byte, offset), ipPacket(c.proto, c.from, c.to, c.data...)...)
			n, err := vm.Run(packet)
			if err != nil || (n > 0) != c.want {
				t.Errorf("offset %d: protocol %d from %s to %s: %d, %v", offset, c.proto, c.from, c.to, n, err)
			}
		}
	}
}

// TestAboutPacket: with addresses that cells share, their packets are told apart by ports and
// ids, and ICMP errors by what they quote.
func TestAboutPacket(t *testing.T) {
	const local, fake = "10.77.1.1", "10.77.2.9"
	end := func(a string, port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(a), port) }
	about := func(p pfconf.Proto, near, far uint16) evidence.About {
		return evidence.About{Proto: p, Local: netip.MustParseAddr(local), Fake: netip.MustParseAddr(fake),
			Flows: []pfconf.Flow{
				{Family: pfconf.Inet, Proto: p, Near: end(fake, near), Far: end(local, far), Echo: 8001},
			}}
	}
	udp, icmp, rip := about(pfconf.UDP, 20001, 8001), about(pfconf.ICMP, 0, 0), about(pfconf.Raw, 0, 0)
	const local6, fake6 = "fd00:77:1::1", "fd00:77:2::9"
	udp6 := udp
	udp6.Flows = []pfconf.Flow{{Family: pfconf.Inet6, Proto: pfconf.UDP, Near: end(fake6, 20001),
		Far: end(local6, 8001)}}
	own := udp
	own.Own = []netip.Addr{own.Fake}
	echo := func(id uint16) []byte { return binary.BigEndian.AppendUint16([]byte{8, 0, 0, 0}, id) }
	echo8 := func(id uint16) []byte { return append(echo(id), 0, 1) }
	errorAbout := func(packet []byte) []byte { return append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, packet...) }
	for i, c := range []struct {
		about  evidence.About
		packet []byte
		want   bool
	}{
		{udp, ipPacket(17, local, fake, portPair(8001, 20001)...), true},
		{udp, ipPacket(17, fake, local, portPair(20001, 8001)...), true},
		{udp, ipPacket(17, local, fake, portPair(40000, 20001)...), true}, // its control
		{udp, ipPacket(17, local, fake, portPair(8002, 20002)...), false},
		{udp, ipPacket(6, local, fake, portPair(8001, 20001)...), false},
		{udp, ipPacket(17, local, "10.77.1.2", portPair(8001, 20001)...), false},
		{own, ipPacket(17, local, fake, portPair(8002, 20002)...), true},
		{own, ipPacket(1, fake, local, 3, 3), true},
		{udp, ipPacket(1, "10.77.1.2", local, errorAbout(ipPacket(17, local, fake, portPair(8001, 20001)...))...),
			true},
		{udp, ipPacket(1, "10.77.1.2", local, errorAbout(ipPacket(17, local, fake, portPair(8002, 20002)...))...),
			false},
		{icmp, ipPacket(1, local, fake, echo8(8001)...), true},
		{icmp, ipPacket(1, local, fake, echo8(8001|1<<15)...), true}, // its control
		{icmp, ipPacket(1, local, fake, echo8(8002)...), false},
		{rip, ipPacket(254, local, fake, 'C'), true},
		{rip, ipPacket(253, local, fake, 'C'), false},
		{udp6, ipPacket(17, local6, fake6, portPair(8001, 20001)...), true},
		{udp6, ipPacket(17, local6, fake6, portPair(8002, 20002)...), false},
		{udp6, ipPacket(44, local6, fake6, append([]byte{17, 0, 0, 1, 0, 0, 0, 7}, portPair(8001, 20001)...)...), true},
		{udp6, ipPacket(44, local6, fake6, append([]byte{17, 0, 0, 1, 0, 0, 0, 7}, portPair(8002, 20002)...)...),
			false},
		{udp6, ipPacket(44, local6, fake6, 17, 0, 5, 0xa8, 0, 0, 0, 7, 'x'), true}, // a later fragment
		{udp6, ipPacket(44, local6, fake6, 6, 0, 5, 0xa8, 0, 0, 0, 7, 'x'), false},
		{udp6, ipPacket(0, local6, fake6, append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, portPair(8001, 20001)...)...), true},
		{udp6, ipPacket(44, local6, fake6, 17, 0, 0), false},
		{udp6, ipPacket(58, "fd00:77:1::2", local6, append([]byte{1, 4, 0, 0, 0, 0, 0, 0},
			ipPacket(44, local6, fake6, append([]byte{17, 0, 0, 1, 0, 0, 0, 7}, portPair(8001, 20001)...)...)...)...),
			true},
		{udp, nil, false},
		{udp, []byte{0x4f, 0}, false},
	} {
		if got := c.about.Packet(c.packet); got != c.want {
			t.Errorf("%d: %v, not %v", i, got, c.want)
		}
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(ipPacket(1, "10.77.1.2", "10.77.1.1", append([]byte{3, 3, 0, 0, 0, 0, 0, 0},
		ipPacket(17, "10.77.1.1", "10.77.2.9", portPair(1, 2)...)...)...))
	f.Add(ipPacket(58, "fd00:77:1::2", "fd00:77:1::1", 1, 4, 0, 0))
	a := evidence.About{Flows: []pfconf.Flow{{Family: pfconf.Inet, Proto: pfconf.UDP,
		Near: netip.MustParseAddrPort("10.77.2.9:2"), Far: netip.MustParseAddrPort("10.77.1.1:1")}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		a.Packet(b)
		for _, link := range []evidence.LinkType{evidence.LinkRaw, evidence.LinkEthernet, evidence.LinkPflog} {
			a.Packet(evidence.Packet{Link: link, Data: b}.IP())
		}
	})
}

// TestRecorder: it keeps the newest packets, and a bounded number of bytes.
func TestRecorder(t *testing.T) {
	var r recorder
	for i := range 100_000 {
		r.add(evidence.Packet{Length: i, Time: time.Unix(int64(i), 0), Data: make([]byte, 100)})
	}
	if r.size > ringSize || r.size < ringSize/2 || len(r.packets)*(100+packetOverhead) != r.size {
		t.Errorf("%d packets, %d bytes", len(r.packets), r.size)
	}
	if last := r.packets[len(r.packets)-1].Length; last != 99_999 {
		t.Errorf("the last packet is %d", last)
	}
	// A cell that began before the oldest packet that is there may lack some, and is told.
	for began, lacks := range map[int64]bool{0: true, int64(r.packets[0].Length) - 2: true,
		int64(r.packets[0].Length): false} {
		if _, err := r.of(evidence.About{}, time.Unix(began, 0)); (err != nil) != lacks {
			t.Errorf("began %d, the oldest is of %d: %v", began, r.packets[0].Length, err)
		}
	}
	for i, p := range r.packets {
		if p.Length != r.packets[0].Length+i {
			t.Fatalf("packet %d is %d: one is missing", i, p.Length)
		}
	}
}

// TestBound: of too many packets the first and the last are kept.
func TestBound(t *testing.T) {
	for _, n := range []int{0, evidence.MaxPackets, evidence.MaxPackets + 1, 3 * evidence.MaxPackets} {
		packets := make([]evidence.Packet, n)
		for i := range packets {
			packets[i].Length = i
		}
		got := bound(packets)
		if len(got) != min(n, evidence.MaxPackets) {
			t.Errorf("%d of %d packets", len(got), n)
		}
		for i, p := range got {
			if want := i; i < evidence.MaxPackets/2 && p.Length != want {
				t.Fatalf("of %d, place %d has packet %d", n, i, p.Length)
			}
			if want := n - len(got) + i; i >= evidence.MaxPackets/2 && p.Length != want {
				t.Fatalf("of %d, place %d has packet %d, not %d", n, i, p.Length, want)
			}
		}
	}
}
