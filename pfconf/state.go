package pfconf

import (
	"context"
	"net/netip"
	"time"
)

// Flow names a conversation: what the states of both directions have in
// common. Near is the end on the filtering host's side (REMOTE or FAKE), Far
// the other. Protocols without ports have port 0 at both ends.
type Flow struct {
	Family Family         `json:"af"`
	Proto  Proto          `json:"proto"`
	Near   netip.AddrPort `json:"near"`
	Far    netip.AddrPort `json:"far"`
	// Echo is the id of an ICMP flow's echo requests; 0 means any id, which
	// conntrack can only answer by listing its whole table.
	Echo uint16 `json:"echo,omitempty"`
	// Zone is the conntrack zone in which its states are. nftables only.
	Zone uint16 `json:"zone,omitempty"`
}

// State is an entry of a filter's state table (pf's state, Linux's conntrack
// entry), in the terms that they share.
type State struct {
	Family Family `json:"af"`
	Number int    `json:"number"` // IP protocol number: tables hold any protocol
	// Near is the filtering host's side: what pfctl -ss shows on the left. Far is the
	// other end. Ports are 0 where the protocol has none; for ICMP pf puts the
	// id on the side that began and the type on the other.
	Near netip.AddrPort `json:"near"`
	Far  netip.AddrPort `json:"far"`
	// Direction is In when Far began ("<-"), Out when Near did ("->").
	Direction Direction `json:"dir"`
	// NearWas and FarWas are the addresses before translation, where pfctl
	// shows them in parentheses; invalid otherwise.
	NearWas netip.AddrPort `json:"nearWas,omitzero"`
	FarWas  netip.AddrPort `json:"farWas,omitzero"`
	// Interface is the one that the state is bound to (pf's if-bound policy), empty
	// for "all".
	Interface string `json:"interface,omitempty"`
	// Domain is the routing domain (OpenBSD), 0 elsewhere.
	Domain int `json:"domain,omitempty"`
	// Phase is the system's own word, e.g. "ESTABLISHED:FIN_WAIT_2", or Offloaded.
	Phase string `json:"phase"`
	// Age and Expires are known from -vv listings and from conntrack; 0 else.
	Age     time.Duration `json:"age,omitempty"`
	Expires time.Duration `json:"expires,omitempty"`
	// ID is pf's state id with its creator ("6b022fef00000106/fdd13125").
	ID string `json:"id,omitempty"`
	// Label is the creating rule's label, where the system tells; Mark the
	// conntrack mark.
	Label string `json:"label,omitempty"`
	Mark  uint32 `json:"mark,omitempty"`
}

// Offloaded is the phase of what a flowtable forwards (Linux).
const Offloaded = "OFFLOAD"

// Flow returns the flow that the state belongs to, and false for a protocol that
// the suite does not have.
func (s State) Flow() (Flow, bool) {
	f := Flow{Family: s.Family, Near: s.Near, Far: s.Far}
	for _, p := range []Proto{TCP, UDP, Raw, ICMP} {
		if p.Number(s.Family) == s.Number {
			f.Proto = p
			if !p.HasPorts() {
				f.Near, f.Far = netip.AddrPortFrom(f.Near.Addr(), 0), netip.AddrPortFrom(f.Far.Addr(), 0)
			}
			return f, true
		}
	}
	return Flow{}, false
}

// StateTable is a filter's table of states.
type StateTable interface {
	// States lists the whole table.
	States(ctx context.Context) ([]State, error)
	// Lookup returns the states of each flow, in the order of flows; a flow
	// without a state has none. Flows asked for at the same time are looked up
	// together where that is cheaper.
	Lookup(ctx context.Context, flows []Flow) ([][]State, error)
	// KillFlows removes the states of the flows and tells how many there were.
	KillFlows(ctx context.Context, flows []Flow) (int, error)
	// KillLabels removes the states that rules with these labels created.
	KillLabels(ctx context.Context, labels []string) (int, error)
}
