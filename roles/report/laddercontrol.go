package report

import (
	"net/netip"
	"strings"

	"pfdivert/matrix"
)

// isControl reports whether an endpoint sent before the cell's rule was loaded.
func isControl(endpoint string) bool {
	return endpoint == "control" || strings.HasSuffix(endpoint, "-control")
}

// markControls finds the packets of controls, which are sent before the cell's rule is loaded, and
// the answers to them: by their ports, by an echo's id, and those of raw IP by being the
// first.
func markControls(packets []*seen, e *matrix.Evidence, transcripts []matrix.Transcript) {
	for _, t := range transcripts {
		if !isControl(t.Name) {
			continue
		}
		cell := e.Local
		if t.Host == "remote" {
			cell = e.Remote
		}
		var own netip.AddrPort
		for _, s := range cell.Sockets {
			if s.Text == "the cell's "+t.Name {
				own = s.Local // of a connection that was not made there is no line
			}
		}
		echo := ""
		for _, line := range speak(t) {
			if line.own.IsValid() {
				own = line.own
			}
			if _, id, ok := strings.Cut(line.echo, ", "); ok {
				echo, _, _ = strings.Cut(id, ", ")
			}
		}
		markControl(packets, own, echo)
	}
	for i, p := range packets {
		// A later fragment has neither ports nor id.
		p.control = p.control || i > 0 && strings.HasPrefix(p.Summary, "fragment of") && packets[i-1].control && packets[i-1].Source == p.Source
	}
}

// markControl marks the packets of one control; echo is "id N" of its echo, "" for none.
func markControl(packets []*seen, own netip.AddrPort, echo string) {
	if !own.IsValid() {
		return
	}
	first := -1
	for i, p := range packets {
		switch {
		case p.Pflog != "":
		case own.Port() != 0 && echo == "":
			p.control = p.control || fitsEnd(own, p.Source, p.SourcePort) || fitsEnd(own, p.Destination, p.DestinationPort)
		case echo != "":
			p.control = p.control || strings.Contains(p.Summary+",", ", "+echo+",")
		case p.Source == own.Addr() && first >= 0:
			return // the next of the sender's is the client's
		case p.Source == own.Addr():
			first = i
			p.control = true
		case p.Destination == own.Addr() && first >= 0:
			p.control = true
		}
	}
}
