package inject

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/injection"
	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
	"pfdivert/pfconf/nft"
)

// chained is a rule of someone else's packet filter, with its chain.
type chained struct {
	kind     string // type of the chain
	hook     uint32 // NF_INET_*
	priority int32
	rule     []statement
}

// statement appends its expressions to a rule.
type statement func(*netlink.Request)

// Priorities of chains, enum nf_ip_hook_priorities in linux/netfilter_ipv4.h.
const (
	priorityRaw       = -300
	priorityMangle    = -150
	priorityNATDest   = -100
	priorityFilter    = 0
	priorityNATSource = 100
)

// rules are the steps that put such rules into the kernel.
var rules = map[injection.Action]func(change) []chained{
	injection.DropFake: func(c change) []chained {
		if c.Remote {
			return []chained{at(unix.NF_INET_LOCAL_IN, priorityFilter, c.toFake(), drop)}
		}
		return []chained{at(unix.NF_INET_LOCAL_IN, priorityFilter, c.fromFake(), drop)}
	},
	injection.Twice: func(c change) []chained {
		copied := func(r *netlink.Request) {
			r.Immediate(unix.NFT_REG_1, c.There.AsSlice())
			r.Expression("dup", func() { r.Attr32(unix.NFTA_DUP_SREG_ADDR, unix.NFT_REG_1) })
		}
		return []chained{at(unix.NF_INET_LOCAL_OUT, priorityMangle, c.toFake(), notTCP, copied)}
	},
	injection.DropEarly: func(c change) []chained {
		return []chained{at(unix.NF_INET_PRE_ROUTING, priorityRaw, c.toFake(), drop)}
	},
	injection.DropPlain: func(c change) []chained {
		return []chained{at(unix.NF_INET_LOCAL_IN, priorityFilter, c.toHere(), c.proto(pfconf.UDP), drop)}
	},
	injection.DropOut: func(c change) []chained {
		return []chained{at(unix.NF_INET_LOCAL_OUT, priorityFilter, c.fromFake(), drop)}
	},
	injection.Unmark: func(c change) []chained {
		return []chained{at(unix.NF_INET_PRE_ROUTING, priorityMangle+1, c.toFake(), setMark(0))}
	},
	injection.NoTrack: func(c change) []chained {
		return []chained{
			at(unix.NF_INET_PRE_ROUTING, priorityRaw, c.toFake(), bare("notrack")),
			at(unix.NF_INET_LOCAL_OUT, priorityRaw, c.fromFake(), bare("notrack")),
		}
	},
	injection.OtherZone: func(c change) []chained {
		zone := func(r *netlink.Request) {
			r.Immediate(unix.NFT_REG_1, binary.NativeEndian.AppendUint16(nil, 5))
			r.Expression("ct", func() {
				r.Attr32(unix.NFTA_CT_KEY, unix.NFT_CT_ZONE)
				r.Attr32(unix.NFTA_CT_SREG, unix.NFT_REG_1)
			})
		}
		return []chained{at(unix.NF_INET_PRE_ROUTING, priorityRaw, c.toFake(), zone)}
	},
	injection.Redirect: func(c change) []chained {
		var all []chained
		for _, p := range []pfconf.Proto{pfconf.TCP, pfconf.UDP} {
			r := at(unix.NF_INET_PRE_ROUTING, priorityNATDest, c.toFake(), c.proto(p), bare("redir"))
			r.kind = "nat"
			all = append(all, r)
		}
		return all
	},
	injection.Masquerade: func(c change) []chained {
		r := at(unix.NF_INET_POST_ROUTING, priorityNATSource, c.fromFake(), bare("masq"))
		r.kind = "nat"
		return []chained{r}
	},
	injection.OtherProxy: func(c change) []chained {
		diverted := func(r *netlink.Request) {
			r.Immediate(unix.NFT_REG_1, c.family.Loopback().AsSlice())
			r.Payload(unix.NFT_REG_2, unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2) // the destination port
			r.Expression("tproxy", func() {
				r.Attr32(netlink.TproxyFamily, uint32(c.table()))
				r.Attr32(netlink.TproxyRegAddr, unix.NFT_REG_1)
				r.Attr32(netlink.TproxyRegPort, unix.NFT_REG_2)
			})
		}
		var all []chained
		for _, p := range []pfconf.Proto{pfconf.TCP, pfconf.UDP} {
			all = append(all, at(unix.NF_INET_PRE_ROUTING, priorityMangle-1, c.toFake(), c.proto(p), diverted,
				setMark(nft.Mark)))
		}
		return all
	},
}

// markOut marks what FAKE's sockets send, and has it routed again.
func (c change) markOut() []chained {
	r := at(unix.NF_INET_LOCAL_OUT, priorityMangle, c.fromFake(), setMark(nft.Mark))
	r.kind = "route"
	return []chained{r}
}

// at is a rule in a chain of the usual kind.
func at(hook uint32, priority int32, statements ...statement) chained {
	return chained{"filter", hook, priority, statements}
}

// filter puts the rules into a table of the step's name.
func (c change) filter(s injection.Action, all []chained) (err error) {
	socket, err := netlink.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, socket.Close()) }()
	table := string(s)
	r := socket.Transaction()
	add := func(message, flags uint16) { r.Netfilter(netlink.Nft(message), unix.NLM_F_CREATE|flags, c.table(), 0) }
	add(unix.NFT_MSG_NEWTABLE, 0)
	r.AttrString(unix.NFTA_TABLE_NAME, table)
	for _, rule := range all {
		chain := table + "-" + hookNames[rule.hook]
		add(unix.NFT_MSG_NEWCHAIN, 0)
		r.AttrString(unix.NFTA_CHAIN_TABLE, table)
		r.AttrString(unix.NFTA_CHAIN_NAME, chain)
		hook := r.Nest(unix.NFTA_CHAIN_HOOK)
		r.Attr32(unix.NFTA_HOOK_HOOKNUM, rule.hook)
		r.Attr32(unix.NFTA_HOOK_PRIORITY, uint32(rule.priority))
		r.Close(hook)
		r.AttrString(unix.NFTA_CHAIN_TYPE, rule.kind)

		add(unix.NFT_MSG_NEWRULE, unix.NLM_F_APPEND)
		r.AttrString(unix.NFTA_RULE_TABLE, table)
		r.AttrString(unix.NFTA_RULE_CHAIN, chain)
		list := r.Nest(unix.NFTA_RULE_EXPRESSIONS)
		for _, statement := range rule.rule {
			statement(r)
		}
		r.Close(list)
	}
	return socket.CommitAll(r)
}

var hookNames = map[uint32]string{
	unix.NF_INET_PRE_ROUTING: "prerouting", unix.NF_INET_LOCAL_IN: "input",
	unix.NF_INET_LOCAL_OUT: "output", unix.NF_INET_POST_ROUTING: "postrouting",
}

// table is the family of tables.
func (c change) table() uint8 {
	if c.family == pfconf.Inet {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

func drop(r *netlink.Request) {
	bare("counter")(r)
	r.Verdict(0, "") // NF_DROP
}

// bare is an expression without attributes.
func bare(name string) statement {
	return func(r *netlink.Request) { r.Expression(name, func() {}) }
}

// fromFake and toFake match packets from and to the prefix of FAKE.
func (c change) fromFake() statement { return c.address(c.fake, 12, 8) }

func (c change) toFake() statement { return c.address(c.fake, 16, 24) }

// toHere matches packets to the host's own address.
func (c change) toHere() statement {
	return c.address(netip.PrefixFrom(c.Here, c.Here.BitLen()), 16, 24)
}

// address matches a prefix at an offset of the network header.
func (c change) address(p netip.Prefix, offset4, offset6 uint32) statement {
	offset := offset6
	if c.family == pfconf.Inet {
		offset = offset4
	}
	address := p.Addr().AsSlice()
	return func(r *netlink.Request) {
		r.Payload(unix.NFT_REG_1, unix.NFT_PAYLOAD_NETWORK_HEADER, offset, uint32(len(address)))
		r.Mask(net.CIDRMask(p.Bits(), p.Addr().BitLen()))
		r.Compare(unix.NFT_CMP_EQ, address)
	}
}

func (c change) proto(p pfconf.Proto) statement {
	return func(r *netlink.Request) { ofProto(r, unix.NFT_CMP_EQ, p.Number(c.family)) }
}

func notTCP(r *netlink.Request) { ofProto(r, unix.NFT_CMP_NEQ, unix.IPPROTO_TCP) }

func ofProto(r *netlink.Request, op uint32, number int) {
	r.Load("meta", unix.NFTA_META_KEY, unix.NFT_META_L4PROTO, unix.NFTA_META_DREG)
	r.Compare(op, []byte{byte(number)})
}

func setMark(mark uint32) statement {
	return func(r *netlink.Request) {
		r.Immediate(unix.NFT_REG_1, binary.NativeEndian.AppendUint32(nil, mark))
		r.Expression("meta", func() {
			r.Attr32(unix.NFTA_META_KEY, unix.NFT_META_MARK)
			r.Attr32(unix.NFTA_META_SREG, unix.NFT_REG_1)
		})
	}
}
