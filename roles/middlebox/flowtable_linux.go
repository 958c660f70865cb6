package middlebox

import (
	"context"
	"fmt"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
)

// besides opens the connection beside the diverted one, which a flowtable is to take. The pair has
// no ends where the joint is another.
func (b *box) besides(ctx context.Context) (pair, error) {
	if b.Joint != script.Flowtable {
		return pair{}, nil
	}
	if err := b.middle.enter(); err != nil {
		return pair{}, err
	}
	if err := nft.Offload([]string{b.left.Name, b.right.Name}, !b.omits(script.Offloaded)); err != nil {
		return pair{}, err
	}
	c, p, err := b.connect(ctx, netip.AddrPortFrom(b.Client.Addr(), 0), b.Beside, waits)
	if err == nil && p.client != nil {
		p.exchange(ctx, &c)
	}
	if err == nil && (c.At != script.AtServer || c.Err != "") {
		err = fmt.Errorf("the connection beside came to %q: %s", c.At, c.Err)
	}
	return p, err
}

// phase is that of the pair's conntrack entry.
func (p pair) phase(ctx context.Context, fw *nft.Firewall) (string, error) {
	if p.client == nil {
		return "", nil
	}
	client, server := named(p.client.LocalAddr()), named(p.client.RemoteAddr())
	states, err := fw.Lookup(ctx, []pfconf.Flow{{Family: pfconf.FamilyOf(client.Addr()), Proto: pfconf.TCP,
		Near: server, Far: client}})
	if err != nil || len(states[0]) == 0 {
		return "", err
	}
	return states[0][0].Phase, nil
}

// again has both ends of the pair send once more.
func (b *box) again(ctx context.Context, p pair) (c script.Connection) {
	if p.client == nil {
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c.At, c.Own, c.Peer = p.at, named(p.conn.LocalAddr()), named(p.conn.RemoteAddr())
	p.exchange(ctx, &c)
	_, _ = fmt.Fprintf(b.log, "connection from %v to %v, beside: the server read %q, the client %q; %s\n", c.Peer, c.Own,
		c.Read, c.Heard, c.Err)
	return c
}
