package nft

import (
	"pfdivert/pfconf"
	"pfdivert/pfconf/bpf"
)

// programs is what the programs of BPF are loaded for.
func (c Config) programs() bpf.Config { return bpf.Config{NoAssign: c.omits(TProxyModule)} }

// compileBPF returns the entries of the programs' map for r, which is valid. The error is a
// *pfconf.EngineError: programs of BPF do not have what is netfilter's alone.
func (c Config) compileBPF(r pfconf.Rule) ([]kernelRule, error) {
	lack := ""
	switch {
	case r.Action == pfconf.DivertPacket:
		lack = "hand packets to user space"
	case r.Action == pfconf.RdrTo || r.Translated.IsValid():
		lack = "translate addresses"
	case r.Untracked || r.Zone != 0:
		lack = "say what conntrack does"
	case r.DivertsOutput():
		lack = "divert what the host itself sends: it is routed before they see it"
	}
	if lack != "" {
		return nil, &pfconf.EngineError{Engine: c.Engine, What: lack}
	}
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
		return rules, nil
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
	return rules, nil
}
