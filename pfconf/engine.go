package pfconf

import "fmt"

// Engine is a way in which Linux is given this program's rules. Other systems have one, "".
type Engine string

// The engines.
const (
	NFT Engine = "nft" // expressions of nf_tables
	// XT are the extensions of x_tables in nf_tables, as iptables-nft loads them.
	XT Engine = "xt"
	// XTLegacy are the same in the tables of x_tables, as iptables-legacy loads them.
	XTLegacy Engine = "xt-legacy"
	// BPF are programs at the ingress and egress of interfaces, in a build with the tag bpf.
	BPF Engine = "bpf"
	// BPFLookup is a program in the network namespace's search for a socket (sk_lookup), in that
	// build.
	BPFLookup Engine = "bpf-lookup"
)

// EngineError says that rules of the engine cannot do what a rule asks for.
type EngineError struct {
	Engine Engine
	What   string // "hand packets to user space"
}

func (e *EngineError) Error() string {
	return fmt.Sprintf("the rules of -filter %s cannot %s", e.Engine, e.What)
}

// Check returns an *EngineError if rules of the engine cannot do what the rule asks for.
func (e Engine) Check(r Rule) error {
	lack := ""
	switch {
	case e != BPF && e != BPFLookup:
	case r.Action == DivertPacket:
		lack = "hand packets to user space"
	case r.Action == RdrTo || r.Translated.IsValid():
		lack = "translate addresses"
	case r.Untracked || r.Zone != 0:
		lack = "say what conntrack does"
	case e == BPF && r.DivertsOutput():
		lack = "divert what the host itself sends: it is routed before they see it"
	case e == BPF:
	case r.DivertsOutput():
		lack = "divert what the host itself sends: it is for another host, and no socket here is looked for"
	case r.Action == DivertReply:
		lack = "bring answers back: FAKE is local, so they find the socket that is bound to it without a rule"
	case !r.Proto.HasPorts():
		lack = fmt.Sprintf("divert %v: the kernel asks the program about TCP and UDP alone", r.Proto)
	case r.Established:
		lack = "match packets of established flows: they have their socket before the program is asked"
	}
	if lack == "" {
		return nil
	}
	return &EngineError{Engine: e, What: lack}
}

// Built reports whether this program was built with the engine.
func (e Engine) Built() bool { return e != BPF && e != BPFLookup || BuiltBPF }

// Engines lists them, in the order of reports.
var Engines = []Engine{NFT, XT, XTLegacy, BPF, BPFLookup}
