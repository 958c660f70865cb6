package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"pfdivert/matrix/evidence"
	"pfdivert/roles/twin"
)

// tracesPackets: this system's kernels tell which rules a packet meets.
const tracesPackets = true

// watch is the trace of one cell's packets.
type watch struct {
	mu   sync.Mutex
	of   string // the cell
	open *twin.Watch
}

func (w *watch) begin(l *EvidenceRequest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open != nil {
		return fmt.Errorf("the packets of %s are traced", w.of)
	}
	if len(l.About.Flows) == 0 {
		return errors.New("no flow of the cell is known")
	}
	f := l.About.Flows[0] // others of the cell have the same addresses
	c := twin.Conversation{A: f.Near.Addr(), B: f.Far.Addr(), Proto: byte(f.Proto.Number(f.Family))}
	for _, f := range l.About.Flows {
		for _, port := range []uint16{f.Near.Port(), f.Far.Port()} {
			if port != 0 {
				c.Ports = append(c.Ports, port)
			}
		}
	}
	open, err := twin.NewWatch(c)
	if err != nil {
		return err
	}
	w.open, w.of = open, l.Cell
	return nil
}

func (w *watch) end(ctx context.Context, l *EvidenceRequest) ([]evidence.Traced, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil || w.of != l.Cell {
		return nil, errors.New("no packet of the cell was traced")
	}
	ways, err := w.open.End(ctx)
	w.open = nil
	all := make([]evidence.Traced, len(ways))
	for i, way := range ways {
		what := slices.DeleteFunc([]string{l.About.Proto.String(), way.Flags}, func(s string) bool { return s == "" })
		all[i] = evidence.Traced{End: way.End, Lost: way.Lost,
			Packet: fmt.Sprintf("%s %s > %s", strings.Join(what, " "), endText(way.From), endText(way.To))}
		for _, h := range way.Hops {
			all[i].Hops = append(all[i].Hops, evidence.Hop{
				Hook: h.Hook, Table: h.Family + " " + h.Table, Chain: h.Chain,
				Rule: h.Rule, Verdict: h.Verdict, Mark: h.Mark,
			})
		}
	}
	return all, err
}

// endText is an end of a packet: an address, with its port where the protocol has ports.
func endText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
