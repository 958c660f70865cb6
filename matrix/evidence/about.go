package evidence

import (
	"errors"
	"net/netip"
	"slices"

	"pfdivert/pfconf"
)

// About says what belongs to a cell, on both hosts.
type About struct {
	Proto pfconf.Proto `json:"proto"`
	// Local, Remote and Fake are the cell's addresses, of one family.
	Local  netip.Addr `json:"local"`
	Remote netip.Addr `json:"remote"`
	Fake   netip.Addr `json:"fake"`
	// Own are those of the addresses that no other cell has at the same time.
	Own []netip.Addr `json:"own,omitempty"`
	// Flows are the cell's conversations, as REMOTE's state table has them.
	Flows []pfconf.Flow `json:"flows,omitempty"`
	// Ports are those of the cell's own sockets on this host, where they are not the flows'.
	Ports []uint16 `json:"ports,omitempty"`
	// Divert is the divert port or the number of the queue, 0 for none.
	Divert uint16 `json:"divert,omitempty"`
}

// MaxAbout bounds each list of an About.
const MaxAbout = 16

// Validate says what is wrong with it.
func (a About) Validate() error {
	for _, x := range []netip.Addr{a.Local, a.Remote, a.Fake} {
		if !x.IsValid() || x.Zone() != "" || pfconf.FamilyOf(x) != pfconf.FamilyOf(a.Fake) {
			return errors.New("evidence: the cell's addresses are not three of one family")
		}
	}
	if len(a.Own) > MaxAbout || len(a.Ports) > MaxAbout || len(a.Flows) > MaxAbout {
		return errors.New("evidence: a cell has not as many addresses and flows")
	}
	return nil
}

// Family is the family of the cell's addresses.
func (a About) Family() pfconf.Family { return pfconf.FamilyOf(a.Fake) }

// ports are those of the cell's flows. Ids of ICMP echoes are not among them.
func (a About) ports() []uint16 {
	var all []uint16
	for _, f := range a.Flows {
		for _, p := range []uint16{f.Near.Port(), f.Far.Port()} {
			if p != 0 && !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	return all
}

// Socket reports whether a socket could belong to the cell: it has one of its
// ports, or takes all packets of its protocol.
func (a About) Socket(s SocketEntry) bool {
	if a.Divert != 0 && s.Proto == ProtoDivert {
		return s.Local.Port() == a.Divert
	}
	if s.Proto != protoName(a.Proto) && (s.Proto != ProtoRaw || a.Proto.HasPorts()) {
		return false
	}
	if !a.Proto.HasPorts() {
		// One that is bound to another cell's address is none of this cell's.
		return a.near(s.Local.Addr()) && a.near(s.Remote.Addr())
	}
	ports := append(a.ports(), a.Ports...)
	return slices.Contains(ports, s.Local.Port()) || slices.Contains(ports, s.Remote.Port()) && a.near(s.Remote.Addr())
}

// Complete reports whether each of the cell's own sockets is among these.
func (a About) Complete(some []SocketEntry) bool {
	for _, p := range a.Ports {
		if p != a.Divert && !slices.ContainsFunc(some, func(s SocketEntry) bool { return s.Local.Port() == p }) {
			return false
		}
	}
	return true
}

// near reports whether the address is the cell's, a host's or none.
func (a About) near(x netip.Addr) bool {
	return !x.IsValid() || x.IsUnspecified() || x.IsLoopback() || x == a.Local || x == a.Remote || x == a.Fake
}

// ProtoDivert is the Socket.Proto of divert sockets and of those that take a netfilter
// queue; their Local has the port or the queue's number.
const ProtoDivert = "divert"

// ProtoRaw is the Socket.Proto of a raw socket whose protocol the system does not show.
const ProtoRaw = "raw"

// protoName is the Socket.Proto of a cell's protocol.
func protoName(p pfconf.Proto) string {
	if p == pfconf.Raw {
		return "raw 254"
	}
	return p.String()
}
