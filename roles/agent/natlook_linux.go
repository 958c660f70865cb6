package agent

import (
	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
)

func natlook(q pfconf.NATQuery) (pfconf.NATAnswer, error) {
	answer, err := nft.Natlook(q)
	return answer, explainNFT(err)
}
