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
)

// EngineError says that rules of the engine cannot do what a rule asks for.
type EngineError struct {
	Engine Engine
	What   string // "hand packets to user space"
}

func (e *EngineError) Error() string {
	return fmt.Sprintf("the rules of -filter %s cannot %s", e.Engine, e.What)
}

// Built reports whether this program was built with the engine.
func (e Engine) Built() bool { return e != BPF || builtBPF }

// Engines lists them, in the order of reports.
var Engines = []Engine{NFT, XT, XTLegacy, BPF}
