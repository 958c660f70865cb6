package pf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"pfdivert/pfconf"
)

// natlookLayout is where a system's struct pfioc_natlook (net/pfvar.h) has its members.
// It begins with the addresses saddr, daddr, rsaddr and rdaddr on every system, 16 bytes
// each; numbers of two bytes follow, then af, proto and direction with one byte each.
type natlookLayout struct {
	size    int
	request uint32 // DIOCNATLOOK: _IOWR('D', 23, struct pfioc_natlook)
	// rdomain is where rdomain is, with rrdomain behind it; 0 where there are none.
	rdomain int
	ports   int // sport, dport, rsport, rdport
	family  int // af, proto, direction
	inet6   byte
}

// DIOCNATLOOK is the one request of pf(4) that this package makes itself: no pfctl makes it. The
// structures are those of FreeBSD 12.1's and OpenBSD 7.7's net/pfvar.h.
var (
	freebsdNatlook = natlookLayout{size: 76, request: 0xc04c4417, ports: 64, family: 72, inet6: 28}
	openbsdNatlook = natlookLayout{size: 80, request: 0xc0504417, rdomain: 64, ports: 68, family: 76, inet6: 24}
)

const afInet = 2 // AF_INET, everywhere

// pf's directions (net/pfvar.h).
var pfDirections = map[pfconf.Direction]byte{pfconf.In: 1, pfconf.Out: 2}

// encode is the question as the system's structure. Addresses and ports are in network
// byte order, the routing domain in the host's.
func (l natlookLayout) encode(q pfconf.NATQuery) []byte {
	b := make([]byte, l.size)
	copy(b, q.Src.Addr().AsSlice())
	copy(b[16:], q.Dst.Addr().AsSlice())
	if l.rdomain != 0 {
		binary.NativeEndian.PutUint16(b[l.rdomain:], uint16(q.Domain))
	}
	binary.BigEndian.PutUint16(b[l.ports:], q.Src.Port())
	binary.BigEndian.PutUint16(b[l.ports+2:], q.Dst.Port())
	b[l.family] = afInet
	if q.Src.Addr().Is6() {
		b[l.family] = l.inet6
	}
	b[l.family+1] = byte(q.Proto.Number(pfconf.FamilyOf(q.Src.Addr())))
	b[l.family+2] = pfDirections[q.Direction]
	return b
}

// decode reads what the kernel put into the structure.
func (l natlookLayout) decode(b []byte) pfconf.NATAnswer {
	host := func(address, port int) netip.AddrPort {
		raw := [16]byte(b[address:])
		a := netip.AddrFrom16(raw)
		if b[l.family] == afInet {
			a = netip.AddrFrom4([4]byte(raw[:4]))
		}
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[port:]))
	}
	a := pfconf.NATAnswer{Src: host(32, l.ports+4), Dst: host(48, l.ports+6)}
	if l.rdomain != 0 {
		a.Domain = int(binary.NativeEndian.Uint16(b[l.rdomain+2:]))
	}
	return a
}

// natlook asks by way of ioctl, which makes the request with the structure.
func (l natlookLayout) natlook(q pfconf.NATQuery,
	ioctl func(request uint32, b []byte) error) (pfconf.NATAnswer, error) {
	if err := q.Validate(); err != nil {
		return pfconf.NATAnswer{}, err
	}
	if q.Domain != 0 && l.rdomain == 0 {
		return pfconf.NATAnswer{}, errors.New("this system's pf knows no routing domains")
	}
	// Not PF_INOUT: that looks for the key that PF_OUT does, and for PF_IN source and
	// destination are the other way round in it (pf_ioctl.c).
	directions := []pfconf.Direction{q.Direction}
	if q.Direction == 0 {
		directions = []pfconf.Direction{pfconf.Out, pfconf.In}
	}
	for _, d := range directions {
		q.Direction = d
		b := l.encode(q)
		err := ioctl(l.request, b)
		switch {
		case errors.Is(err, syscall.ENOENT):
			continue
		case errors.Is(err, syscall.E2BIG):
			return pfconf.NATAnswer{}, fmt.Errorf("%v: pf has more than one such state", q)
		case err != nil:
			return pfconf.NATAnswer{}, fmt.Errorf("DIOCNATLOOK: %w", err)
		}
		return l.decode(b), nil
	}
	return pfconf.NATAnswer{}, fmt.Errorf("%w: %v", pfconf.ErrNoState, q)
}
