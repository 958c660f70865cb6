package evidence

// Traced is a packet's way through a host's packet filter, as its kernel told of it.
type Traced struct {
	Packet string `json:"packet"` // "tcp SYN 10.0.0.1:8000 > 10.0.0.2:20000"
	Hops   []Hop  `json:"hops,omitempty"`
	// End says where the packet ended: "was dropped by …".
	End string `json:"end"`
	// Lost: it came neither to the sockets nor to a device.
	Lost bool `json:"lost,omitempty"`
}

// Hop is a rule that a packet matched, or the policy of a chain.
type Hop struct {
	Hook  string `json:"hook"`  // "prerouting"
	Table string `json:"table"` // with its family: "inet filter"
	Chain string `json:"chain"`
	// Rule is the rule as nft(8) or iptables(8) writes it, or "policy drop".
	Rule    string `json:"rule"`
	Verdict string `json:"verdict"` // "accept", "drop", "continue", "jump CHAIN", …
	Mark    uint32 `json:"mark,omitempty"`
}

// Dropped reports whether the packet ended there.
func (h Hop) Dropped() bool { return h.Verdict == "drop" }

// Policy reports whether no rule decided but the chain's policy.
func (h Hop) Policy() bool { return h.Rule == "policy accept" || h.Rule == "policy drop" }

// Dropping returns the hop that dropped the packet, false when none did.
func (t Traced) Dropping() (Hop, bool) {
	if n := len(t.Hops); n > 0 && t.Hops[n-1].Dropped() {
		return t.Hops[n-1], true
	}
	return Hop{}, false
}
