package spoil

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"pfdivert/matrix/injection"
	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
)

// chained is a rule of someone else's packet filter, with its chain.
type chained struct {
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	rule     []expr.Any
}

// rules are the steps that put such rules into the kernel.
var rules = map[injection.Step]func(change) []chained{
	injection.DropFake: func(c change) []chained {
		if c.Remote {
			return []chained{c.at(nftables.ChainHookInput, nftables.ChainPriorityFilter, c.toFake(), drop)}
		}
		return []chained{c.at(nftables.ChainHookInput, nftables.ChainPriorityFilter, c.fromFake(), drop)}
	},
	injection.Twice: func(c change) []chained {
		copied := []expr.Any{
			&expr.Immediate{Register: 1, Data: c.There.AsSlice()},
			&expr.Dup{RegAddr: 1},
		}
		return []chained{c.at(nftables.ChainHookOutput, nftables.ChainPriorityMangle, c.toFake(), notTCP(), copied)}
	},
	injection.DropEarly: func(c change) []chained {
		return []chained{c.at(nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, c.toFake(), drop)}
	},
	injection.DropPlain: func(c change) []chained {
		return []chained{c.at(nftables.ChainHookInput, nftables.ChainPriorityFilter, c.toHere(), c.proto(pfconf.UDP), drop)}
	},
	injection.DropOut: func(c change) []chained {
		return []chained{c.at(nftables.ChainHookOutput, nftables.ChainPriorityFilter, c.fromFake(), drop)}
	},
	injection.Unmark: func(c change) []chained {
		return []chained{c.at(nftables.ChainHookPrerouting, nftables.ChainPriorityRef(*nftables.ChainPriorityMangle+1), c.toFake(), setMark(0))}
	},
	injection.NoTrack: func(c change) []chained {
		untracked := []expr.Any{&expr.Notrack{}}
		return []chained{
			c.at(nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, c.toFake(), untracked),
			c.at(nftables.ChainHookOutput, nftables.ChainPriorityRaw, c.fromFake(), untracked),
		}
	},
	injection.OtherZone: func(c change) []chained {
		zone := []expr.Any{
			&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint16(nil, 5)},
			&expr.Ct{Key: expr.CtKeyZONE, Register: 1, SourceRegister: true},
		}
		return []chained{c.at(nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, c.toFake(), zone)}
	},
	injection.Redirect: func(c change) []chained {
		var all []chained
		for _, p := range []pfconf.Proto{pfconf.TCP, pfconf.UDP} {
			r := c.at(nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, c.toFake(), c.proto(p), []expr.Any{&expr.Redir{}})
			r.kind = nftables.ChainTypeNAT
			all = append(all, r)
		}
		return all
	},
	injection.Masquerade: func(c change) []chained {
		r := c.at(nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, c.fromFake(), []expr.Any{&expr.Masq{}})
		r.kind = nftables.ChainTypeNAT
		return []chained{r}
	},
	injection.OtherProxy: func(c change) []chained {
		var all []chained
		for _, p := range []pfconf.Proto{pfconf.TCP, pfconf.UDP} {
			diverted := []expr.Any{
				&expr.Immediate{Register: 1, Data: c.family.Loopback().AsSlice()},
				&expr.Payload{DestRegister: 2, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, // the destination port
				&expr.TProxy{Family: byte(c.table()), TableFamily: byte(c.table()), RegAddr: 1, RegPort: 2},
			}
			before := nftables.ChainPriorityRef(*nftables.ChainPriorityMangle - 1)
			all = append(all, c.at(nftables.ChainHookPrerouting, before, c.toFake(), c.proto(p), diverted, setMark(nft.Mark)))
		}
		return all
	},
}

// markOut marks what FAKE's sockets send, and has it routed again.
func (c change) markOut() []chained {
	r := c.at(nftables.ChainHookOutput, nftables.ChainPriorityMangle, c.fromFake(), setMark(nft.Mark))
	r.kind = nftables.ChainTypeRoute
	return []chained{r}
}

// at is a rule in a chain of the usual kind.
func (c change) at(hook *nftables.ChainHook, priority *nftables.ChainPriority, statements ...[]expr.Any) chained {
	r := chained{nftables.ChainTypeFilter, hook, priority, nil}
	for _, s := range statements {
		r.rule = append(r.rule, s...)
	}
	return r
}

// filter puts the rules into a table of the step's name.
func (c change) filter(s injection.Step, all []chained) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	t := conn.AddTable(&nftables.Table{Name: string(s), Family: c.table()})
	for _, r := range all {
		ch := conn.AddChain(&nftables.Chain{
			Name: string(s) + "-" + hookNames[*r.hook], Table: t, Type: r.kind, Hooknum: r.hook, Priority: r.priority,
		})
		conn.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: r.rule})
	}
	return conn.Flush()
}

var hookNames = map[nftables.ChainHook]string{
	unix.NF_INET_PRE_ROUTING: "prerouting", unix.NF_INET_LOCAL_IN: "input",
	unix.NF_INET_LOCAL_OUT: "output", unix.NF_INET_POST_ROUTING: "postrouting",
}

func (c change) table() nftables.TableFamily {
	if c.family == pfconf.Inet {
		return nftables.TableFamilyIPv4
	}
	return nftables.TableFamilyIPv6
}

var drop = []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}

// fromFake and toFake match packets from and to the prefix of FAKE.
func (c change) fromFake() []expr.Any { return c.address(c.fake, 12, 8) }
func (c change) toFake() []expr.Any   { return c.address(c.fake, 16, 24) }

// toHere matches packets to the host's own address.
func (c change) toHere() []expr.Any {
	return c.address(netip.PrefixFrom(c.Here, c.Here.BitLen()), 16, 24)
}

// address matches a prefix at an offset of the network header.
func (c change) address(p netip.Prefix, offset4, offset6 uint32) []expr.Any {
	n, offset := uint32(16), offset6
	if c.family == pfconf.Inet {
		n, offset = 4, offset4
	}
	net := ipnet(p)
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: n},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: n, Mask: net.Mask, Xor: make([]byte, n)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: net.IP},
	}
}

func (c change) proto(p pfconf.Proto) []expr.Any { return ofProto(expr.CmpOpEq, p.Number(c.family)) }

func notTCP() []expr.Any { return ofProto(expr.CmpOpNeq, unix.IPPROTO_TCP) }

func ofProto(op expr.CmpOp, number int) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: []byte{byte(number)}},
	}
}

func setMark(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
	}
}
