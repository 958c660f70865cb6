package explain

import (
	"fmt"
	"slices"
	"strings"

	"pfdivert/matrix/evidence"
)

// traced is the packet of the trace that tells most: the first that was lost, else the last.
func (h *HostFacts) traced() (evidence.Traced, bool) {
	if len(h.Trace) == 0 {
		return evidence.Traced{}, false
	}
	i := slices.IndexFunc(h.Trace, func(t evidence.Traced) bool { return t.Lost })
	if i < 0 {
		i = len(h.Trace) - 1
	}
	return h.Trace[i], true
}

// met reports whether a traced packet met a rule of the chain, or of one that it jumps to, that
// may have done such a thing. Without a trace it may have.
func (h *HostFacts) met(f foreign, c chains) bool {
	if len(h.Trace) == 0 {
		return true
	}
	drops := !slices.ContainsFunc(c.does, func(d string) bool { return d != "drop" && d != "reject" })
	return slices.ContainsFunc(h.Trace, func(t evidence.Traced) bool {
		return slices.ContainsFunc(t.Hops, func(hop evidence.Hop) bool {
			there := hop.Hook == f.hook && strings.HasPrefix(f.text, "table "+hop.Table+" ")
			return there && (hop.Dropped() || !drops && !hop.Policy())
		})
	})
}

// dropper names the rule or policy that dropped a packet of the trace, "" when none did.
func (h *HostFacts) dropper() string {
	t, _ := h.traced()
	hop, ok := t.Dropping()
	if !ok {
		return ""
	}
	return fmt.Sprintf("table %s chain %s hook %s: %s", hop.Table, hop.Chain, hop.Hook, hop.Rule)
}

// tracedTo adds to where the packet was last seen where a traced one ended.
func (c *Case) tracedTo(seen string) string {
	t, ok := c.Remote.traced()
	if !ok || !t.Lost {
		return seen
	}
	if seen != "" {
		seen += "; "
	}
	return fmt.Sprintf("%sby the trace of REMOTE's kernel, %s %s", seen, t.Packet, t.End)
}
