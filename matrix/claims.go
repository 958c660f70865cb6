package matrix

import "pfdivert/pfconf"

// claims are all claims, in the order in which they are listed.
var claims = []Claim{
	{
		Name: "no-listener-in", Proto: pfconf.UDP, Mode: PacketIn, play: (*half).noListener,
		Says: "a packet for which nobody listens is dropped",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)",
			"nftables": "nft(8), queue statement: without bypass the packet is dropped",
		},
	},
	{
		Name: "no-listener-out", Proto: pfconf.UDP, Mode: PacketOut, play: (*half).noListener,
		Says: "a packet that leaves and for which nobody listens is dropped",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)",
			"nftables": "nft(8), queue statement: without bypass the packet is dropped",
		},
	},
	{
		Name: "not-given-back", Proto: pfconf.UDP, Mode: PacketIn, play: (*half).notGivenBack,
		Says: "a packet that is not given back is lost",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)",
			"nftables": "nfnetlink_queue.c: a queue that is destroyed drops what it holds",
		},
	},
	{
		Name: "no-loop-in", Proto: pfconf.UDP, Mode: PacketIn, play: (*half).noLoop,
		Says: "a packet that is given back does not meet the rule again",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)",
			"nftables": "nf_queue.c: NF_ACCEPT goes on behind the chain",
		},
	},
	{
		Name: "no-loop-out", Proto: pfconf.UDP, Mode: PacketOut, play: (*half).noLoop,
		Says: "a packet that leaves and is given back does not meet the rule again",
		By: map[string]string{
			"pf": "divert(4)", "ipfw": "divert(4)",
			"nftables": "nf_queue.c: NF_ACCEPT goes on behind the chain",
		},
	},
}
