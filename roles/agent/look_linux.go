package agent

import (
	"pfdivert/pfconf/nft"
	gather "pfdivert/roles/evidence"
)

// routing returns what the packet filter's diverted packets are routed by.
func routing(o *gather.Options) { o.Mark, o.Table, o.Own = nft.Mark, nft.Table, nft.TableName }
