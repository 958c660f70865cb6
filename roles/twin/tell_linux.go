package twin

import (
	"fmt"
	"slices"
	"strings"
)

// Bad reports whether a problem is more than a warning.
func (d *Diagnosis) Bad() bool {
	return slices.ContainsFunc(d.Problems, func(p Problem) bool { return p.Severity == Bad })
}

// Story tells in short what the host's rules did to a path's first packet and to that which ended
// it.
func (c *Snapshot) Story(p FlowPath) []string {
	if len(p.Packets) == 0 {
		return nil
	}
	return c.story(p.Packets[0])
}

// Way lists the hops of a packet, for a diagram: devices, rules, its end.
func (c *Snapshot) Way(k PacketPath) []string {
	var all []string
	hook := ""
	for _, h := range k.Hops {
		if h.own {
			continue
		}
		if h.Hook != hook {
			text := h.Hook
			if h.In != "" {
				text += " from " + h.In
			}
			if h.Out != "" {
				text += " to " + h.Out
			}
			all = append(all, fmt.Sprintf("%s, mark 0x%x", text, h.Mark))
			hook = h.Hook
		}
		if h.Number > 0 && !strings.HasPrefix(h.Rule, "policy ") {
			all = append(all, fmt.Sprintf("%s: %s", h.name(c), h.Verdict))
		}
	}
	return append(all, c.endText(k))
}

// Trace writes a path, a packet after the other with all that it met.
func (c *Snapshot) Trace(p FlowPath) []string {
	var all []string
	for _, k := range p.Packets {
		who := "the client's"
		if k.Answer {
			who = "the answer's"
		}
		all = append(all, fmt.Sprintf("%s %s from %v", who, k.Name(), k.From))
		for _, h := range k.Hops {
			if h.own {
				if h.Verdict == "continue" {
					text := fmt.Sprintf("  %s: mark 0x%x, %v -> %v", h.Chain, h.Mark, h.From, h.To)
					if h.In != "" {
						text += ", in " + h.In
					}
					if h.Out != "" {
						text += ", out " + h.Out
					}
					all = append(all, text)
				}
				continue
			}
			all = append(all, fmt.Sprintf("    %s: %s, mark 0x%x", h.name(c), h.Verdict, h.Mark))
		}
		all = append(all, "  "+c.endText(k))
	}
	return all
}
