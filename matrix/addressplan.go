package matrix

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"pfdivert/pfconf"
)

// Addresses are the addresses of a run in one family.
type Addresses struct {
	// Local and Remote are the hosts' real addresses.
	Local, Remote netip.Addr
	// Locals and Fakes are where cells get theirs from. A prefix of one address
	// is that address for all; with more, every cell has its own.
	Locals, Fakes netip.Prefix
}

// Validate says what is wrong with the addresses.
func (a Addresses) Validate() error {
	f := pfconf.FamilyOf(a.Local)
	for _, x := range []struct {
		name string
		addr netip.Addr
	}{{"LOCAL", a.Local}, {"REMOTE", a.Remote}, {"FAKE", a.Fakes.Addr()}, {"the cells' LOCAL", a.Locals.Addr()}} {
		switch {
		case !x.addr.IsValid():
			return fmt.Errorf("%v: no %s address is given", f, x.name)
		case pfconf.FamilyOf(x.addr) != f || x.addr.Zone() != "" || x.addr.IsUnspecified() || x.addr.IsMulticast() ||
			x.addr.IsLoopback():
			return fmt.Errorf("%v: %v can't be the %s address", f, x.addr, x.name)
		}
	}
	switch {
	case a.Local == a.Remote:
		return fmt.Errorf("%v: LOCAL and REMOTE are both %v", f, a.Local)
	case a.Fakes.Contains(a.Local) || a.Fakes.Contains(a.Remote):
		return fmt.Errorf("%v: FAKE (%v) must not be an address of LOCAL (%v) or REMOTE (%v)", f, a.Fakes, a.Local, a.Remote)
	}
	return nil
}

// Ports of cells lie below the ranges from which Linux (32768 on) and FreeBSD and the
// BSDs' high range (49152 on) give out ports by themselves. OpenBSD's begins at
// 1024: a port that is taken there makes the cell be run again.
const (
	clientPorts = 8000  // first port of the clients
	serverPorts = 20000 // first port of the servers
	portsEach   = 12000
)

// Divert ports have a number space of their own (divert(4)), queues too. The suite has
// 666; other programs begin at 0.
const (
	divertPorts     = 26600
	divertPortsEach = 32
)

// newDivertPorts makes the pool of divert ports.
func newDivertPorts() chan uint16 {
	pool := make(chan uint16, divertPortsEach)
	for i := range uint16(divertPortsEach) {
		pool <- divertPorts + i
	}
	return pool
}

// AddressPlan gives out the addresses, ports and ids of cells, each fresh until the
// largest prefix or port range is used up.
type AddressPlan struct {
	families map[pfconf.Family]Addresses
	run      string
	first    uint64 // of the run's ports in the port ranges
	ports    uint64 // how many it has
	offset   uint64 // where it begins among them
	n        atomic.Uint64
}

// NewAddressPlan makes the space of a run. Runs begin at different ports, so that the
// last one's TIME_WAIT sockets on a real host do not meet the next one.
func NewAddressPlan(families map[pfconf.Family]Addresses) *AddressPlan {
	return &AddressPlan{
		families: families,
		run:      fmt.Sprintf("%06x", rand.Uint32N(1<<24)),
		ports:    portsEach,
		offset:   rand.Uint64N(portsEach),
	}
}

// take leaves the space one of so many equal parts of the ports; 0 parts leave all.
func (s *AddressPlan) take(part, parts int) {
	if parts > 0 {
		s.ports = portsEach / uint64(parts)
		s.first = uint64(part) * s.ports
	}
}

// Cell is what one play of a target uses.
type Cell struct {
	Target
	// Session names the cell on the agents.
	Session string
	Local   netip.Addr
	Remote  netip.Addr
	Fake    netip.Addr
	// Client and Server are the ports of the two ends; the first cell of a reuse
	// target has them this way round. Portless protocols use them as ids.
	Client, Server uint16
	// Divert is the divert port, or the queue's number, of a divert-packet cell. It is
	// taken from a small pool: a netfilter queue is cheap only when it was there before.
	Divert uint16
	// shared: other cells may have the same LOCAL, so that their raw packets are
	// heard as well and must be told apart by FAKE.
	shared bool
	own    []netip.Addr // addresses that no other cell has at the same time
	// lockKey is a key; cells with the same one must not be run at the same
	// time. Empty: any time.
	lockKey string
	run     string
}

// Cell returns the target addresses, ports and ids.
func (s *AddressPlan) Cell(t Target) Cell {
	n := s.n.Add(1)
	a := s.families[t.Family]
	port := uint16(s.first + (s.offset+n)%s.ports)
	c := Cell{
		Target:  t,
		Session: fmt.Sprintf("%s#%d", t.Name, n),
		Local:   nth(a.Locals, n),
		Remote:  a.Remote,
		Fake:    nth(a.Fakes, n),
		Client:  clientPorts + port,
		Server:  serverPorts + port,
		shared:  a.Locals.IsSingleIP(),
		own:     a.own(nth(a.Locals, n), nth(a.Fakes, n)),
		run:     fmt.Sprintf("%s-%d", s.run, n),
	}
	// The suite's cells without ports have FAKE to tell them apart; the claims' servers on
	// REMOTE have its own address, and would hear each other's packets.
	if !t.Proto.HasPorts() && (a.Fakes.IsSingleIP() || t.Claim != nil) {
		c.lockKey = fmt.Sprintf("%v %v", t.Family, t.Proto)
	}
	return c
}

// label is the label of the cell's rule; part tells the two rules of a reuse
// target apart.
func (c *Cell) label(part string) string { return pfconf.LabelPrefix + "-" + c.run + part }

// nth returns the nth address of a prefix, counted round and leaving out the
// first and the last, which may mean a network and a broadcast address.
func nth(p netip.Prefix, n uint64) netip.Addr {
	bits := p.Addr().BitLen() - p.Bits()
	if bits == 0 {
		return p.Addr()
	}
	if bits == 1 {
		n %= 2
	} else {
		n = 1 + n%(1<<min(bits, 48)-2)
	}
	if p.Addr().Is4() {
		b := p.Masked().Addr().As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := p.Masked().Addr().As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	return netip.AddrFrom16(b)
}
