package pfconf

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

// Built reports whether this program was built with the engine.
func (e Engine) Built() bool { return e != BPF || builtBPF }

// Engines lists them, in the order of reports.
var Engines = []Engine{NFT, XT, XTLegacy, BPF}
