//go:build bpf

package bpf

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"pfdivert/pfconf"
)

// Registers that calls of helpers leave alone.
const (
	skb  = asm.R6
	rule = asm.R7 // the entry's value
	sock = asm.R8
	l4   = asm.R9 // where the transport header is, from the network header; later what a helper returned
)

// What the programs have on their stack.
const (
	onKey   = -keySize
	onFlow  = onKey - flowKeySize
	onTuple = onFlow - 40  // struct bpf_sock_tuple, linux/bpf.h: at most 36 bytes
	onIP    = onTuple - 40 // the network header
	onPorts = onIP - 8     // source and destination port, or ICMP's type, code, checksum and id
	onFlags = onPorts - 8  // of TCP
	onSide  = onFlags - 8  // who began a flow
)

// Fields of struct __sk_buff and struct bpf_sock, linux/bpf.h.
const (
	skbMark     = 8
	skbProtocol = 16
	skbIfindex  = 40
	skState     = 72
)

// Numbers of the kernel's and of protocols.
const (
	tcActUnspec   = -1 // goes on with other filters of the interface
	tcActShot     = 2
	fromNetwork   = 1  // BPF_HDR_START_NET
	thisNamespace = -1 // BPF_F_CURRENT_NETNS
	noExist       = 1  // BPF_NOEXIST
	syn           = 0x02
	ack           = 0x10
	established   = 1  // TCP_ESTABLISHED, of UDP too: it is connected
	listening     = 10 // TCP_LISTEN
	echoReply6    = 129
)

// Who began a flow.
const (
	beganFar = iota + 1
	beganNear
)

// layout is where addresses are in headers of a family and in struct bpf_sock_tuple.
type layout struct {
	family             pfconf.Family
	ethertype          uint16
	header             int32 // the header's length, without options
	proto, source, dst int16
	address            int16 // an address's length
}

var layouts = []layout{
	{pfconf.Inet, 0x0800, 20, 9, 12, 16, 4},
	{pfconf.Inet6, 0x86dd, 40, 6, 8, 24, 16},
}

// tuple returns how long the tuple is: two addresses and two ports.
func (l layout) tuple() int32 { return 2*int32(l.address) + 4 }

// program gathers instructions.
type program struct {
	asm.Instructions
	rules, flows *ebpf.Map
	socks        *ebpf.Map       // listeners
	assign       asm.BuiltinFunc // 0 without
	labelled     string          // of the next instruction
}

func (p *program) add(all ...asm.Instruction) {
	for _, i := range all {
		if p.labelled != "" {
			i = i.WithSymbol(p.labelled)
			p.labelled = ""
		}
		p.Instructions = append(p.Instructions, i)
	}
}

// label names the next instruction.
func (p *program) label(name string) { p.labelled = name }

// onStack has the register point to a place on the stack.
func (p *program) onStack(r asm.Register, at int16) {
	p.add(asm.Mov.Reg(r, asm.RFP), asm.Add.Imm(r, int32(at)))
}

// zero clears bytes of the stack, a multiple of 8.
func (p *program) zero(at int16, n int16) {
	p.add(asm.Mov.Imm(asm.R2, 0))
	for i := int16(0); i < n; i += 8 {
		p.add(asm.StoreMem(asm.RFP, at+i, asm.R2, asm.DWord))
	}
}

// move copies bytes of the stack, a multiple of 4 or less than that.
func (p *program) move(to, from, n int16) {
	size := asm.Word
	switch n {
	case 1:
		size = asm.Byte
	case 2:
		size = asm.Half
	}
	for i := int16(0); i < n; i += 4 {
		p.add(asm.LoadMem(asm.R1, asm.RFP, from+i, size), asm.StoreMem(asm.RFP, to+i, asm.R1, size))
	}
}

// copyRule copies bytes of the entry's value to the stack.
func (p *program) copyRule(to, from, n int16) {
	size := asm.Word
	if n == 2 {
		size = asm.Half
	}
	for i := int16(0); i < n; i += 4 {
		p.add(asm.LoadMem(asm.R1, rule, from+i, size), asm.StoreMem(asm.RFP, to+i, asm.R1, size))
	}
}

// load loads bytes of the packet to the stack, from the network header plus where l4 points if
// behind is set; without them the packet goes on.
func (p *program) load(to int16, behind bool, offset, n int32) {
	p.add(asm.Mov.Reg(asm.R1, skb), asm.Mov.Imm(asm.R2, offset))
	if behind {
		p.add(asm.Add.Reg(asm.R2, l4))
	}
	p.onStack(asm.R3, to)
	p.add(asm.Mov.Imm(asm.R4, n), asm.Mov.Imm(asm.R5, fromNetwork), asm.FnSkbLoadBytesRelative.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"))
}

// lookup looks a key on the stack up; without an entry it goes to the label.
func (p *program) lookup(m *ebpf.Map, key int16, missing string) {
	p.add(asm.LoadMapPtr(asm.R1, m.FD()))
	p.onStack(asm.R2, key)
	p.add(asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, missing))
}

// count adds 1 to a counter of the entry.
func (p *program) count(at int16) {
	p.add(asm.Mov.Imm(asm.R1, 1), asm.AddAtomic.Mem(rule, asm.R1, asm.DWord, at))
}

// unless goes to the label when a flag of the entry is not set.
func (p *program) unless(flag int32, label string) {
	p.add(asm.LoadMem(asm.R1, rule, atFlags, asm.Word), asm.And.Imm(asm.R1, flag), asm.JEq.Imm(asm.R1, 0, label))
}

// came lets packets pass that came by another interface than the entry's.
func (p *program) came(label string) {
	p.add(asm.LoadMem(asm.R1, rule, atIndex, asm.Word), asm.JEq.Imm(asm.R1, 0, label),
		asm.LoadMem(asm.R2, skb, skbIfindex, asm.Word), asm.JNE.Reg(asm.R1, asm.R2, "pass"))
	p.label(label)
}

// mark sets the packet's mark, if the entry has one.
func (p *program) mark() {
	p.add(asm.LoadMem(asm.R1, rule, atMark, asm.Word), asm.JEq.Imm(asm.R1, 0, "pass"),
		asm.StoreMem(skb, skbMark, asm.R1, asm.Word))
}

// remember makes the flow, if there is none, as begun by one side.
func (p *program) remember(began int64) {
	p.add(asm.StoreImm(asm.RFP, onSide, began, asm.Word), asm.LoadMapPtr(asm.R1, p.flows.FD()))
	p.onStack(asm.R2, onFlow)
	p.onStack(asm.R3, onSide)
	p.add(asm.Mov.Imm(asm.R4, noExist), asm.FnMapUpdateElem.Call())
}

// renew forgets the flow when the packet begins a connection: the last one may have been begun by
// the other side.
func (p *program) renew(label string) {
	p.add(asm.LoadMem(asm.R1, asm.RFP, onFlags, asm.Byte), asm.And.Imm(asm.R1, syn|ack),
		asm.JNE.Imm(asm.R1, syn, label), asm.LoadMapPtr(asm.R1, p.flows.FD()))
	p.onStack(asm.R2, onFlow)
	p.add(asm.FnMapDeleteElem.Call())
	p.label(label)
}

// find looks for a socket by the tuple on the stack; without one it goes to the label. The caller
// releases it.
func (p *program) find(l layout, proto pfconf.Proto, missing string) {
	helper := asm.FnSkcLookupTcp
	if proto == pfconf.UDP {
		helper = asm.FnSkLookupUdp
	}
	p.add(asm.Mov.Reg(asm.R1, skb))
	p.onStack(asm.R2, onTuple)
	p.add(asm.Mov.Imm(asm.R3, l.tuple()), asm.Mov.Imm(asm.R4, thisNamespace), asm.Mov.Imm(asm.R5, 0), helper.Call(),
		asm.JEq.Imm(asm.R0, 0, missing), asm.Mov.Reg(sock, asm.R0))
}

func (p *program) release() { p.add(asm.Mov.Reg(asm.R1, sock), asm.FnSkRelease.Call()) }

// give gives the packet to the socket and releases that. Refused, the packet passes.
func (p *program) give() {
	p.add(asm.Mov.Reg(asm.R1, skb), asm.Mov.Reg(asm.R2, sock), asm.Mov.Imm(asm.R3, 0), p.assign.Call(),
		asm.Mov.Reg(l4, asm.R0))
	p.release()
	p.add(asm.JNE.Imm(l4, 0, "pass"))
}

// parse fills the key, but for kind and port, in, and the flow's. near and far are where the ports
// of the flow come from: the destination's of what comes in. Behind it are the ports, or 0. Frag-
// ments have none and pass: tc comes before they are put together.
func (p *program) parse(l layout, name string, in bool) {
	p.label(name)
	p.load(onIP, false, 0, l.header)
	near, far := l.source, l.dst
	if in {
		near, far = far, near
	}
	for _, at := range []int16{onKey + 1, onFlow} {
		p.add(asm.StoreImm(asm.RFP, at, int64(l.family), asm.Byte))
	}
	p.move(onKey+2, onIP+l.proto, 1)
	p.move(onFlow+1, onIP+l.proto, 1)
	p.move(onKey+8, onIP+l.source, l.address)
	p.move(onKey+24, onIP+l.dst, l.address)
	p.move(onFlow+8, onIP+near, l.address)
	p.move(onFlow+24, onIP+far, l.address)
	p.move(onTuple, onIP+l.source, l.address)
	p.move(onTuple+l.address, onIP+l.dst, l.address)
	p.add(asm.Mov.Imm(l4, l.header))
	if l.family == pfconf.Inet {
		p.add(asm.LoadMem(l4, asm.RFP, onIP, asm.Byte), asm.And.Imm(l4, 15), asm.LSh.Imm(l4, 2),
			asm.LoadMem(asm.R1, asm.RFP, onIP+6, asm.Half), asm.HostTo(asm.BE, asm.R1, asm.Half),
			asm.And.Imm(asm.R1, 0x3fff), asm.JNE.Imm(asm.R1, 0, name+"-fragment"))
	}
	p.add(asm.LoadMem(asm.R1, asm.RFP, onIP+l.proto, asm.Byte),
		asm.JEq.Imm(asm.R1, int32(pfconf.TCP.Number(l.family)), name+"-tcp"),
		asm.JEq.Imm(asm.R1, int32(pfconf.UDP.Number(l.family)), name+"-ports"),
		asm.JNE.Imm(asm.R1, int32(pfconf.ICMP.Number(l.family)), name+"-parsed"))
	p.load(onPorts, true, 0, 8)
	p.move(onFlow+4, onPorts+4, 2)
	p.move(onFlow+6, onPorts+4, 2)
	p.add(asm.Ja.Label(name + "-parsed"))
	if l.family == pfconf.Inet {
		p.label(name + "-fragment")
		p.add(asm.LoadMem(asm.R1, asm.RFP, onIP+l.proto, asm.Byte),
			asm.JEq.Imm(asm.R1, int32(pfconf.TCP.Number(l.family)), "pass"),
			asm.JEq.Imm(asm.R1, int32(pfconf.UDP.Number(l.family)), "pass"), asm.Ja.Label(name+"-parsed"))
	}
	p.label(name + "-tcp")
	p.load(onFlags, true, 13, 1)
	p.label(name + "-ports")
	p.load(onPorts, true, 0, 4)
	nearPort, farPort := int16(onPorts), int16(onPorts+2)
	if in {
		nearPort, farPort = farPort, nearPort
	}
	p.move(onFlow+4, nearPort, 2)
	p.move(onFlow+6, farPort, 2)
	p.move(onTuple+2*l.address, onPorts, 4)
	p.label(name + "-parsed")
}

// keyed sets the kind and the port of the key: that at onPorts+offset, if the protocol has ports.
func (p *program) keyed(kind Kind, offset int16, label string) {
	p.add(asm.StoreImm(asm.RFP, onKey, int64(kind), asm.Byte), asm.StoreImm(asm.RFP, onKey+4, 0, asm.Half),
		asm.LoadMem(asm.R1, asm.RFP, onKey+2, asm.Byte),
		asm.JEq.Imm(asm.R1, int32(pfconf.TCP.Number(pfconf.Inet)), label+"-port"),
		asm.JNE.Imm(asm.R1, int32(pfconf.UDP.Number(pfconf.Inet)), label))
	p.label(label + "-port")
	p.move(onKey+4, onPorts+offset, 2)
	p.label(label)
}

// begin clears the stack and goes to the part of the packet's family.
func (p *program) begin() {
	p.add(asm.Mov.Reg(skb, asm.R1))
	p.zero(onSide, -onSide)
	p.add(asm.LoadMem(asm.R1, skb, skbProtocol, asm.Word))
	for _, l := range layouts {
		ethertype := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, l.ethertype))
		p.add(asm.JEq.Imm(asm.R1, int32(ethertype), l.family.String()))
	}
	p.add(asm.Ja.Label("pass"))
}

// end has the packet go on.
func (p *program) end() {
	p.label("pass")
	p.add(asm.Mov.Imm(asm.R0, tcActUnspec), asm.Return())
}

// ingress is the program for what comes in.
func (p *program) ingress() asm.Instructions {
	p.begin()
	for _, l := range layouts {
		name := l.family.String()
		p.parse(l, name, true)
		p.keyed(To, 2, name+"-to-keyed")
		p.lookup(p.rules, onKey, name+"-no-to")
		p.add(asm.Mov.Reg(rule, asm.R0))
		p.came(name + "-to-came")
		p.unless(flagAssign, name+"-portless")
		p.add(asm.LoadMem(asm.R1, asm.RFP, onKey+2, asm.Byte),
			asm.JEq.Imm(asm.R1, int32(pfconf.UDP.Number(l.family)), name+"-udp-own"))
		for _, proto := range []pfconf.Proto{pfconf.TCP, pfconf.UDP} {
			p.divert(l, proto, fmt.Sprintf("%s-%v", name, proto))
		}
		p.label(name + "-no-to")
		p.keyed(Back, 0, name+"-back-keyed")
		p.lookup(p.rules, onKey, "pass")
		p.add(asm.Mov.Reg(rule, asm.R0), asm.Ja.Label("back"))
		p.label(name + "-portless")
		p.count(atMatched)
		p.add(asm.Ja.Label("diverted"))
	}
	p.label("diverted")
	p.count(atDone)
	p.renew("renewed")
	p.unless(flagRemember, "marked")
	p.remember(beganFar)
	p.label("marked")
	p.mark()
	p.add(asm.Ja.Label("pass"))
	p.label("back")
	p.came("back-came")
	p.lookup(p.flows, onFlow, "pass")
	p.add(asm.LoadMem(l4, asm.R0, 0, asm.Word))
	p.unless(flagOwnFlows, "answer")
	p.add(asm.JNE.Imm(l4, beganNear, "pass"))
	p.label("answer")
	p.count(atMatched)
	p.mark()
	p.end()
	return p.Instructions
}

// divert gives a packet to a socket: to the one that it belongs to, as tproxy does, or else to the
// entry's listener. A socket in TIME_WAIT has a new SYN, too: a program can't remove it, and both
// would be found by the connection's next packet.
func (p *program) divert(l layout, proto pfconf.Proto, name string) {
	p.label(name + "-own")
	if p.assign == 0 {
		p.add(asm.Ja.Label("pass")) // no entry has a listener
		return
	}
	p.find(l, proto, name+"-new")
	p.add(asm.LoadMem(asm.R1, sock, skState, asm.Word))
	if proto == pfconf.UDP {
		p.add(asm.JEq.Imm(asm.R1, established, name+"-known"))
	} else {
		p.add(asm.JNE.Imm(asm.R1, listening, name+"-known"))
	}
	p.label(name + "-other")
	p.release()
	p.label(name + "-new")
	p.count(atMatched)
	p.copyRule(onTuple+l.address, atAddr, l.address)
	p.copyRule(onTuple+2*l.address+2, atPort, 2)
	p.find(l, proto, "pass")
	p.give()
	p.add(asm.Ja.Label("diverted"))
	p.label(name + "-known")
	p.unless(flagEstablished, name+"-counted")
	p.count(atOwn)
	p.give()
	p.add(asm.Ja.Label("marked"))
	p.label(name + "-counted")
	p.count(atMatched)
	p.give()
	p.add(asm.Ja.Label("diverted"))
}

// egress is the program for what leaves.
func (p *program) egress() asm.Instructions {
	p.begin()
	for _, l := range layouts {
		name := l.family.String()
		p.parse(l, name, false)
		p.keyed(Out, 2, name+"-out-keyed")
		p.add(asm.Ja.Label("out"))
	}
	p.label("out")
	p.lookup(p.rules, onKey, "echo")
	p.add(asm.Mov.Reg(rule, asm.R0))
	p.count(atMatched)
	p.renew("renewed")
	p.unless(flagRemember, "remembered")
	p.remember(beganNear)
	p.label("remembered")
	p.lookup(p.flows, onFlow, "pass")
	p.count(atDone)
	p.add(asm.Ja.Label("pass"))
	p.label("echo")
	p.add(asm.LoadMem(asm.R1, asm.RFP, onKey+2, asm.Byte),
		asm.JNE.Imm(asm.R1, int32(pfconf.ICMP.Number(pfconf.Inet6)), "pass"),
		asm.LoadMem(asm.R1, asm.RFP, onPorts, asm.Byte), asm.JNE.Imm(asm.R1, echoReply6, "pass"),
		asm.StoreImm(asm.RFP, onKey, int64(Echo), asm.Byte))
	p.lookup(p.rules, onKey, "pass")
	p.add(asm.Mov.Reg(rule, asm.R0))
	p.count(atMatched)
	p.add(asm.Mov.Imm(asm.R0, tcActShot), asm.Return())
	p.end()
	return p.Instructions
}
