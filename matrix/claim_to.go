package matrix

import (
	"context"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// dualStack: a transparent listener on :: that is not IPV6_V6ONLY gets diverted connections of both
// families. (nf_tproxy_get_sock_v4, net/ipv4/netfilter/nf_tproxy_ipv4.c, looks a listener up as any
// packet does, and compute_score, net/ipv4/inet_hashtables.c, takes a dual-stack one.)
//
//  1. A listener of REMOTE is bound to :: and the rule's port. Control: before the rule is there, a
//     client like the cell's does not reach it.
//  2. The client connects to FAKE, and the server accepts. The accepted socket's own name is FAKE
//     and the port there and its peer the client; of IPv4 both are mapped into IPv6.
//  3. The server reads the client's line. Its answer comes back to the client from FAKE.
//  4. The rule counted at least three packets, and its action served all.
func (x *claimRun) dualStack(ctx context.Context) error {
	from, to := x.flowEnds()
	server := script.Stream{Ends: script.Ends{
		Role: script.Server, Local: netip.AddrPortFrom(pfconf.Inet6.Unspecified(), x.server),
		Diverted: true, DualStack: !x.omit[DualStack], Omit: x.omitted(),
	}}
	if x.omit[AllAddresses] {
		server.Local = x.redirected()
	}
	if err := x.beginServed(ctx, server); err != nil {
		return err
	}
	if err := x.connectsAndServes(ctx, mapped(from), mapped(to)); err != nil {
		return err
	}
	return x.judgeServed(ctx, 3)
}

// mapped is a name as a dual-stack socket shows it.
func mapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

// judgeServed judges that the rule has matched so many packets, of TCP at least so many, and that
// its action found a socket for each.
func (x *claimRun) judgeServed(ctx context.Context, packets uint64) error {
	at := x.remote.request()
	counters := at.counters(x.label())
	if err := at.run(ctx); err != nil {
		return err
	}
	x.exchange.counters, x.counterKnown = *counters.Counters, true
	return x.judgeCounters(packets, 0)
}
