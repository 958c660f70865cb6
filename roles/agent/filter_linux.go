package agent

import (
	"context"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
)

// WarmUp begins to find out, in the background, what OpenFilter's firewall will want to
// know. It is for the agent of a host that is going to be REMOTE.
func WarmUp() { nft.WarmUp() }

// OpenFilter opens nf_tables.
func OpenFilter(ctx context.Context, s *script.Setup, opt Options) (pfconf.Firewall, error) {
	nic := opt.Interface
	if nic == "" {
		var err error
		if nic, err = interfaceTowards(s.Paths); err != nil {
			return nil, err
		}
	}
	c := nft.Config{Interface: nic, Fakes: s.Fakes, Journal: opt.Journal}
	for _, o := range s.Omit {
		c.Omit = append(c.Omit, nft.Piece(o))
	}
	fw, err := nft.Open(ctx, c)
	if err != nil {
		return nil, explainNFT(err)
	}
	return fw, nil
}
