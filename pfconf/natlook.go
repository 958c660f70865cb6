package pfconf

import (
	"errors"
	"fmt"
	"net/netip"
)

// A NATQuery asks for a translated connection by its addresses and ports as one side of the
// filter sees them, and is answered with those of the other side (pf(4), DIOCNATLOOK).
type NATQuery struct {
	Proto Proto `json:"proto"`
	// Direction is Out for a connection whose destination was translated (rdr-to) as the socket
	// here sees it: Src is the client, Dst the socket's own name. It is In for one whose source was
	// translated (nat-to) as the other host sees it: Src is the address that it was translated to,
	// Dst the other host. These are the constants that pf(4) wants, PF_OUT and PF_IN. 0 asks for
	// either.
	Direction Direction      `json:"dir,omitempty"`
	Src       netip.AddrPort `json:"src"`
	Dst       netip.AddrPort `json:"dst"`
	// Domain is the routing domain of Src and Dst (OpenBSD), 0 elsewhere.
	Domain int `json:"domain,omitempty"`
}

// NATAnswer has the addresses and ports of the other side: Src is who began the
// connection (pf(4)'s example calls it the internal host), Dst whom it was meant for, the
// original destination.
type NATAnswer struct {
	Src, Dst netip.AddrPort
	Domain   int
}

// MaxDomain is the largest number of a routing domain (RT_TABLEID_MAX in
// OpenBSD's sys/socket.h).
const MaxDomain = 255

// Validate says why the question can't be asked.
func (q NATQuery) Validate() error {
	if q.Proto != TCP && q.Proto != UDP {
		return fmt.Errorf("translated connections are looked up for tcp and udp, not for %v", q.Proto)
	}
	if q.Direction != 0 && directionNames[q.Direction] == "" {
		return fmt.Errorf("%v is no direction", q.Direction)
	}
	for _, a := range []netip.AddrPort{q.Src, q.Dst} {
		if !fits(a.Addr(), FamilyOf(q.Src.Addr())) || a.Port() == 0 {
			return fmt.Errorf("%v and %v are not addresses with ports of one family", q.Src, q.Dst)
		}
	}
	if q.Domain < 0 || q.Domain > MaxDomain {
		return fmt.Errorf("routing domain %d does not exist: they go up to %d", q.Domain, MaxDomain)
	}
	return nil
}

func (q NATQuery) String() string {
	return fmt.Sprintf("%v from %v to %v", q.Proto, q.Src, q.Dst)
}

// ErrNoState is the answer that the filter has no state for the addresses and ports
// that it was asked about.
var ErrNoState = errors.New("no such state")
