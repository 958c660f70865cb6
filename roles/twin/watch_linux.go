package twin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conversation is whose packets are watched: of an IP protocol, between two addresses of one
// family, in both directions. Ports are those that one end of a TCP or UDP packet must have, none
// for any.
type Conversation struct {
	A, B  netip.Addr
	Proto byte
	Ports []uint16
}

// Watch is a trace of one conversation in the network namespace of this process. It adds a table to
// nf_tables there, so it is for a lab's host. The caller ends it.
type Watch struct {
	of     Conversation
	traces *netlink.Conn
	done   chan error
	events [][]byte // as the kernel sent them; to be read when done
}

// maxWatched bounds the events of a Watch, 100 packets that meet 100 rules each.
const maxWatched = 10_000

// NewWatch has the kernel trace the conversation's packets from now on.
func NewWatch(of Conversation) (*Watch, error) {
	if !of.A.IsValid() || !of.B.IsValid() || of.A.Is6() != of.B.Is6() {
		return nil, errors.New("trace: a conversation has two addresses of one family")
	}
	w := &Watch{of: of, done: make(chan error, 1)}
	var err error
	if w.traces, err = dial(unix.NETLINK_NETFILTER, 0); err != nil {
		return nil, err
	}
	_ = w.traces.SetReadBuffer(traceBuffer)
	if err := w.traces.JoinGroup(unix.NFNLGRP_NFTRACE); err != nil {
		_ = w.traces.Close()
		return nil, fmt.Errorf("traces of nf_tables: %w", err)
	}
	var matches []attrs
	for _, ends := range [][2]netip.Addr{{of.A, of.B}, {of.B, of.A}} {
		matches = append(matches, slices.Concat(
			added{IPv6: of.A.Is6(), From: single(ends[0]), To: single(ends[1]), UID: -1}.exprs("inet"),
			attrs{loadMeta(unix.NFT_META_L4PROTO), compare(unix.NFT_CMP_EQ, []byte{of.Proto})}))
	}
	var requests []request
	for _, m := range traceMessages(matches) {
		requests = append(requests, request{m.Type, netlink.Create | unix.NLM_F_APPEND, m.Data})
	}
	if err := changeNFT(requests); err != nil {
		_ = w.traces.Close()
		return nil, fmt.Errorf("the table that traces packets: %w", err)
	}
	go func() {
		w.done <- receiveTraces(w.traces, func(m netlink.Message) {
			trace := uint16(m.Header.Type) == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_TRACE
			if trace && len(w.events) < maxWatched {
				w.events = append(w.events, m.Data)
			}
		})
	}()
	return w, nil
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// changeNFT carries the requests out in one transaction.
func changeNFT(requests []request) error {
	c, err := dial(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	mark := func(kind uint16) request {
		return request{kind, 0, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}}
	}
	failed, err := perform(c, slices.Concat([]request{mark(unix.NFNL_MSG_BATCH_BEGIN)}, requests,
		[]request{mark(unix.NFNL_MSG_BATCH_END)}), true)
	for _, e := range failed {
		err = errors.Join(err, e)
	}
	return err
}

// Way is a watched packet's way.
type Way struct {
	PacketPath
	// End says where it ended: "was dropped by …", "came to the sockets of port 80".
	End string
	// Lost: it ended in a rule, in routing or between two hooks, and not at a socket or a device.
	Lost bool
}

// End ends the trace and returns the packets' ways, in the order in which the kernel met them.
// Rules have their texts as long as they are loaded.
func (w *Watch) End(ctx context.Context) ([]Way, error) {
	defer w.traces.Close()
	if err := fenceTraces(w.traces); err != nil {
		return nil, err
	}
	err := <-w.done
	d := &Dump{}
	if err == nil {
		err = d.readRoutes(ctx, unix.RTM_GETLINK)
	}
	if err == nil {
		err = d.readNFT(ctx)
	}
	table := attrs{{unix.NFTA_TABLE_NAME, zero(traceTable)}}.append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0})
	remove := changeNFT([]request{{unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE, 0, table}})
	if err := errors.Join(err, remove); err != nil {
		return nil, err
	}
	c, err := decode(d)
	if err != nil {
		return nil, err
	}
	tr := &tracer{config: c, writer: newWriter(c), any: true}
	tr.know(c)
	for _, e := range w.events {
		tr.events = append(tr.events, tr.nftEvent(e)...)
	}
	packets := slices.DeleteFunc(tr.packets(), func(p PacketPath) bool { return !w.of.has(p) })
	routes, err := dial(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return nil, err
	}
	defer routes.Close()
	if err := c.askRoutes(routes, packets); err != nil {
		return nil, err
	}
	ways := make([]Way, len(packets))
	for i, p := range packets {
		stage := p.end().stage
		ways[i] = Way{p, c.endText(p), stage == inRules || stage == inRouting || stage == lostElsewhere}
		ways[i].Hops = slices.DeleteFunc(p.Hops, func(h Hop) bool { return h.own })
	}
	return ways, nil
}

// has reports whether the packet is the conversation's.
func (c Conversation) has(p PacketPath) bool {
	return len(c.Ports) == 0 || p.From.Port() == 0 && p.To.Port() == 0 ||
		slices.Contains(c.Ports, p.From.Port()) || slices.Contains(c.Ports, p.To.Port())
}
