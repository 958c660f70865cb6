package agent

import (
	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
)

// OpenDesk shows this host's nf_tables and conntrack.
func OpenDesk() (pfconf.Desk, error) {
	d, err := nft.OpenDesk()
	if err != nil {
		return nil, explainNFT(err)
	}
	return d, nil
}
