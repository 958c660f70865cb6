package matrix

import (
	"context"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// fragmentSizes are lengths of datagrams around those that fit into one and two Ethernet frames,
// and the longest. (UDP has 8 bytes of header, IPv4 20 and IPv6 40.)
func fragmentSizes(f pfconf.Family) []int {
	fits, longest := 1500-20-8, 65535-20-8
	if f == pfconf.Inet6 {
		fits, longest = 1500-40-8, 65535-8
	}
	return []int{fits - 1, fits, fits + 1, fits + 8, 2*fits + 8, 9000, longest}
}

// fragments: datagrams that come in fragments are put together before they are diverted, whatever
// their length (nf_defrag_ipv4.c and nf_defrag_ipv6_hooks.c; pf.conf(5), set reassemble;
// openwrt/openwrt#19198 is about kernels that lost those of some lengths).
//
//  1. Control: what a client sends to a socket of REMOTE's own address arrives, of each length:
//     the way between the hosts is not at fault. What a client like the cell's sends to FAKE does
//     not reach the server before the rule is there.
//  2. The client sends datagrams to FAKE, of lengths around those that fit into one and two frames
//     and the longest. Each comes to the server, whole and once.
//  3. The rule has counted them.
func (x *claimRun) fragments(ctx context.Context) error {
	x.big = true
	if err := x.openEnds(ctx); err != nil {
		return err
	}
	own := netip.AddrPortFrom(x.Remote, 0)
	at := x.remote.request()
	direct := at.open("direct", script.Datagram{Ends: script.Ends{Role: script.Server, Local: own, Big: true}})
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(direct); err != nil {
		return err
	}
	spec := script.Datagram{Ends: script.Ends{Role: script.Client, Local: netip.AddrPortFrom(x.Local, 0),
		Remote: direct.Local, Big: true}}
	there := x.local.request()
	ready := []*stepResult{there.open("prober", spec), there.connect("prober", spec)}
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.opened(ready...); err != nil {
		return err
	}
	sizes := fragmentSizes(x.Family)
	if err := x.sendsAll(ctx, "prober", "direct", sizes); err != nil {
		return err
	}
	c, err := datagram{x.exchange}.control(ctx, "server")
	if err != nil {
		return err
	}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}
	if err := x.sendsAll(ctx, "client", "server", sizes); err != nil {
		return err
	}
	return x.judgeServed(ctx, uint64(len(sizes)))
}

// sendsAll has a client of LOCAL send datagrams of the lengths, one after the other, and judges
// that each comes to the server.
func (x *claimRun) sendsAll(ctx context.Context, client, server string, sizes []int) error {
	for number, size := range sizes {
		b := script.Burst{First: number, Count: 1, Size: size, Line: script.ClientLine}
		sending := b
		if x.omit[Whole] && client == "client" && size > oneFrame {
			sending.Count, sending.Size = 20, 1000
		}
		there := x.local.request()
		sent := there.sendBurst(client, sending)
		there.fence()
		if err := there.run(ctx); err != nil {
			return err
		}
		if err := unanswered(sent); err != nil {
			return err
		}
		at := x.remote.request()
		received := at.receiveBurst(server, b)
		if err := at.run(ctx); err != nil {
			return err
		}
		if t := received.Tally; server == "direct" && (t == nil || t.Right < 1) {
			return broken(ControlLost, "%s: a message of %d bytes does not arrive although no rule diverts it: %s",
				received.where, size, received.found())
		}
		if err := judgeBurst(received, b, NotDelivered); err != nil {
			return err
		}
	}
	return nil
}
