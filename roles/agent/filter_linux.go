package agent

import (
	"context"
	"fmt"

	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
)

// OpenFilter opens nf_tables and notes what the kernel is proven to lack.
func OpenFilter(ctx context.Context, s *Setup, opt Options, facts *Facts) (pfconf.Firewall, error) {
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
	for _, need := range s.Needs {
		feature, ok := map[string]nft.Feature{NeedStream: nft.TransparentProxy, NeedPacket: nft.NFQueue}[need]
		if !ok {
			_ = fw.Close(ctx)
			return nil, fmt.Errorf("there is no feature %q to ask for", need)
		}
		// A feature that could not be asked for is left to the cells: they
		// fail with the kernel's own words.
		if a := fw.Probe(feature); a.Outcome == nft.No {
			facts.Missing[need] = fmt.Sprintf("the kernel refused a rule with %s: %v", feature, a.Err)
		}
	}
	return fw, nil
}
