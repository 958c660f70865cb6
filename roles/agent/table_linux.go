package agent

import (
	"context"

	"pfdivert/pfconf"
)

// ownStates returns LOCAL's state table. A conntrack entry of LOCAL's own is no rule's: it
// lets a new connection with the same addresses and ports pass (nf_conntrack_tcp_packet, "reopen").
func ownStates(context.Context, Options) (pfconf.StateTable, error) { return pfconf.Stateless{}, nil }
