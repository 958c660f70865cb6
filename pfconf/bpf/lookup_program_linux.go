//go:build bpf

package bpf

import (
	"github.com/cilium/ebpf/asm"

	"pfdivert/pfconf"
)

// Fields of struct bpf_sk_lookup, linux/bpf.h. Addresses are as in packets, the local port is in
// the host's order. Linux has the interface since 5.17.
const (
	lookFamily    = 8
	lookProto     = 12
	lookRemote4   = 16
	lookRemote6   = 20
	lookLocal4    = 40
	lookLocal6    = 44
	lookLocalPort = 60
	lookIfindex   = 64
)

const (
	afInet  = 2
	afInet6 = 10
	skPass  = 1 // SK_PASS: without a socket the kernel goes on looking
)

// look is the program that chooses the socket of a packet that no connected socket has
// (bpf-sk_lookup). In it skb is the struct bpf_sk_lookup.
func (p *program) look(hasInterface bool) asm.Instructions {
	p.add(asm.Mov.Reg(skb, asm.R1))
	p.zero(onKey, keySize)
	p.add(asm.StoreImm(asm.RFP, onKey, int64(Look), asm.Byte),
		asm.LoadMem(asm.R1, skb, lookProto, asm.Word), asm.StoreMem(asm.RFP, onKey+2, asm.R1, asm.Byte),
		asm.LoadMem(asm.R1, skb, lookLocalPort, asm.Word), asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.StoreMem(asm.RFP, onKey+4, asm.R1, asm.Half),
		asm.LoadMem(asm.R1, skb, lookFamily, asm.Word),
		asm.JEq.Imm(asm.R1, afInet, "inet"), asm.JNE.Imm(asm.R1, afInet6, "pass"))
	p.addresses(pfconf.Inet6, lookRemote6, lookLocal6, 16)
	p.add(asm.Ja.Label("keyed"))
	p.label("inet")
	p.addresses(pfconf.Inet, lookRemote4, lookLocal4, 4)
	p.label("keyed")
	p.lookup(p.rules, onKey, "pass")
	p.add(asm.Mov.Reg(rule, asm.R0))
	if hasInterface {
		p.add(asm.LoadMem(asm.R1, rule, atIndex, asm.Word), asm.JEq.Imm(asm.R1, 0, "came"),
			asm.LoadMem(asm.R2, skb, lookIfindex, asm.Word), asm.JNE.Reg(asm.R1, asm.R2, "pass"))
		p.label("came")
	}
	p.count(atMatched)
	p.lookup(p.socks, onKey, "pass")
	p.add(asm.Mov.Reg(sock, asm.R0))
	p.give()
	p.count(atDone)
	p.label("pass")
	p.add(asm.Mov.Imm(asm.R0, skPass), asm.Return())
	return p.Instructions
}

// addresses puts the family and the addresses of a packet into the key.
func (p *program) addresses(f pfconf.Family, remote, local, n int16) {
	p.add(asm.StoreImm(asm.RFP, onKey+1, int64(f), asm.Byte))
	for i := int16(0); i < n; i += 4 {
		p.add(asm.LoadMem(asm.R1, skb, remote+i, asm.Word), asm.StoreMem(asm.RFP, onKey+8+i, asm.R1, asm.Word),
			asm.LoadMem(asm.R1, skb, local+i, asm.Word), asm.StoreMem(asm.RFP, onKey+24+i, asm.R1, asm.Word))
	}
}

// finder is the program that looks for an entry's listener and puts it into the map of listeners.
// No packet comes to it: it is run by bpf(2), BPF_PROG_TEST_RUN, and looks in the namespace of the
// thread that does so. It returns 0, or a negative error.
func (p *program) finder() asm.Instructions {
	p.add(asm.Mov.Reg(skb, asm.R1))
	p.zero(onSide, -onSide)
	p.bytes(onKey, findKey, keySize)
	p.bytes(onTuple, findTuple, findSize-findTuple)
	p.add(asm.LoadMem(asm.R1, asm.RFP, onKey+1, asm.Byte), asm.JEq.Imm(asm.R1, int32(pfconf.Inet6), "inet6"))
	for _, l := range layouts {
		name := l.family.String()
		p.label(name)
		p.add(asm.LoadMem(asm.R1, asm.RFP, onKey+2, asm.Byte),
			asm.JEq.Imm(asm.R1, int32(pfconf.UDP.Number(l.family)), name+"-udp"))
		p.find(l, pfconf.TCP, "pass")
		p.add(asm.Ja.Label("found"))
		p.label(name + "-udp")
		p.find(l, pfconf.UDP, "pass")
		p.add(asm.Ja.Label("found"))
	}
	p.label("found")
	p.add(asm.LoadMapPtr(asm.R1, p.socks.FD()))
	p.onStack(asm.R2, onKey)
	p.add(asm.Mov.Reg(asm.R3, sock), asm.Mov.Imm(asm.R4, 0), asm.FnMapUpdateElem.Call(), asm.Mov.Reg(l4, asm.R0))
	p.release()
	p.add(asm.Mov.Reg(asm.R0, l4), asm.Return())
	p.label("pass")
	p.add(asm.Mov.Imm(asm.R0, 0), asm.Return())
	return p.Instructions
}

// bytes loads bytes of the packet, from its Ethernet header on, to the stack.
func (p *program) bytes(to int16, offset, n int32) {
	p.add(asm.Mov.Reg(asm.R1, skb), asm.Mov.Imm(asm.R2, offset))
	p.onStack(asm.R3, to)
	p.add(asm.Mov.Imm(asm.R4, n), asm.FnSkbLoadBytes.Call(), asm.JNE.Imm(asm.R0, 0, "pass"))
}
