package nft

import (
	"pfdivert/pfconf"
	"pfdivert/pfconf/bpf"
)

// programs is what the programs of BPF are loaded for.
func (c Config) programs() bpf.Config { return bpf.Config{NoAssign: c.omits(TProxyModule)} }

// compileLookup returns the entry of the program in the search for a socket, and what marks the
// conntrack entries of the flow, for people and for cleaning up. The engine can do what r asks for.
func (c Config) compileLookup(r pfconf.Rule) []kernelRule {
	e := bpf.Entry{Kind: bpf.Look, Family: r.Family, Proto: r.Proto, From: r.From, To: r.To, Port: r.Port,
		Interface: c.Interface}
	if c.omits(Towards) {
		e.Interface = "elsewhere0"
	}
	if !c.omits(TProxy) {
		e.Divert = r.Divert
	}
	return []kernelRule{
		{label: r.Label, part: partMain, bpf: &e},
		{chain: pre, label: r.Label, part: partOther, statements: append(match(r), ctMark{})},
	}
}

// compileBPF returns the entries of the programs' map for r, which is valid, and what the engine
// can do.
func (c Config) compileBPF(r pfconf.Rule) []kernelRule {
	came, mark := c.Interface, Mark
	if c.omits(Towards) {
		came = "elsewhere0"
	}
	if c.omits(PacketMark) {
		mark = 0
	}
	e := bpf.Entry{Family: r.Family, Proto: r.Proto, From: r.From, To: r.To, Port: r.Port}
	answers := e
	answers.From, answers.To = r.To, r.From
	if r.Action == pfconf.DivertReply {
		e.Kind, e.Remember = bpf.Out, !c.omits(CTMark)
		rules := []kernelRule{{label: r.Label, part: partMain, bpf: &e}}
		if !c.omits(Back) {
			answers.Kind, answers.Interface, answers.Mark = bpf.Back, came, mark
			answers.OwnFlows = c.omits(AnyDirection)
			rules = append(rules, kernelRule{label: r.Label, part: partReply, bpf: &answers})
		}
		return rules
	}
	e.Kind, e.Interface, e.Mark, e.Remember = bpf.To, came, mark, true
	e.Established = r.Established && !c.omits(SocketMatch)
	if r.Proto.HasPorts() && !c.omits(TProxy) {
		e.Divert = r.Divert
	}
	rules := []kernelRule{{label: r.Label, part: partMain, bpf: &e}}
	if r.Family == pfconf.Inet6 && r.Proto == pfconf.ICMP && !c.omits(KernelEcho) {
		answers.Kind = bpf.Echo
		rules = append(rules, kernelRule{label: r.Label, part: partKernel, bpf: &answers})
	}
	return rules
}
