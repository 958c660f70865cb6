package script

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"pfdivert/matrix/evidence"
	"pfdivert/matrix/injection"
	"pfdivert/pfconf"
)

// Host is one of the two hosts of a run. Its methods may be called by many goroutines at once. They
// return a *LostError when the host can't be reached any more, a *Fault when it could not do what
// it was asked, and the cause of ctx when that ended first.
type Host interface {
	// Setup makes the host LOCAL or REMOTE. It is called once, before all else.
	Setup(ctx context.Context, s Setup) (Facts, error)
	// Script carries the steps out in their order and returns an outcome for each.
	Script(ctx context.Context, s Script) ([]Outcome, error)
	// Change makes changes of REMOTE's rules, together where the filter can. Each has a fault of
	// its own, nil if it is in force.
	Change(ctx context.Context, changes []RuleChange) ([]*Error, error)
	// Look returns the host's evidence of a cell. What could not be asked is named in it.
	Look(ctx context.Context, l Look) (evidence.Record, error)
	// Log returns the transcripts of a cell's sockets.
	Log(ctx context.Context, cell string) ([]Transcript, error)
	// Lost reports whether the host can't be reached any more.
	Lost() bool
}

// Setup makes the host LOCAL or REMOTE of a run.
type Setup struct {
	Remote bool `json:"remote"` // this host is REMOTE: open its packet filter
	// Paths are the hosts' real addresses, by family.
	Paths []Path `json:"paths"`
	// Beyond are hosts behind REMOTE, one of a family at most.
	Beyond []netip.Addr `json:"beyond,omitempty"`
	// Gateways are LOCAL's addresses in a second network of REMOTE's, one of a family at most.
	Gateways []netip.Addr `json:"gateways,omitempty"`
	// Fakes are the FAKE addresses, as prefixes.
	Fakes []netip.Prefix `json:"fakes"`
	// Filter is how a Linux REMOTE's kernel is given the rules, "" for pfconf.NFT.
	Filter pfconf.Engine `json:"filter,omitempty"`
	// Rounds is how many echoes make a fence (see Fence).
	Rounds int `json:"rounds"`
	// Omit leaves pieces of the set-up out on purpose, for tests: Timestamps, and
	// the packet filter's (nft.Piece).
	Omit []string `json:"omit,omitempty"`
	// Break is what is done to a lab's host at last, to break it. A real host refuses.
	Break []injection.Action `json:"break,omitempty"`
	// Capture are the prefixes of the cells' addresses: packets from and to them are
	// captured, and those between Paths. Empty: nothing is captured.
	Capture []netip.Prefix `json:"capture,omitempty"`
	// Trace is KTRACE: the command under which endpoints run as processes of
	// their own.
	Trace string `json:"trace,omitempty"`
	// By is who runs the orchestrator, and where: shown to those who wait for the host.
	By string `json:"by,omitempty"`
	// WaitSeconds is how long to wait for another run that is using the host as REMOTE.
	WaitSeconds int `json:"waitSeconds,omitempty"`
}

// Path is the way between the hosts in one family, as the agent sees it.
type Path struct {
	Here  netip.Addr `json:"here"`
	There netip.Addr `json:"there"`
}

// Timestamps is the piece of Setup.Omit that takes TCP's timestamps from a lab's
// host. Linux lets a connection of a socket in TIME_WAIT be taken up again by
// them alone (tcp_tw_reuse in its ip-sysctl.rst).
const Timestamps = "timestamps"

// Facts is what setting up found out.
type Facts struct {
	// Kernel is uname's name and release.
	Kernel string `json:"-"`
	// System is the host's operating system, as in runtime.GOOS.
	System        string `json:"-"`
	Firewall      string `json:"firewall,omitempty"`
	KeepsCounters bool   `json:"keepsCounters,omitempty"`
	// NoPF is why the pf of a FreeBSD host can't be used beside ipfw, empty where it can.
	NoPF string `json:"noPF,omitempty"`
	// NoRdr is why that pf can't redirect, empty where it can.
	NoRdr string `json:"noRdr,omitempty"`
	// PFUnknown: NoPF or NoRdr is a question about it that failed, and proves no lack.
	PFUnknown bool `json:"pfUnknown,omitempty"`
	// PFOn: that pf is switched on.
	PFOn bool `json:"pfOn,omitempty"`
	// Interfaces are those that have the addresses of Setup's Paths; of BSD hosts alone. Empty:
	// it is not known.
	Interfaces map[pfconf.Family]string `json:"interfaces,omitempty"`
	// Beyond is how REMOTE reaches Setup's Gateways and Beyond, by family; of BSDs alone.
	Beyond map[pfconf.Family]Beyond `json:"beyond,omitempty"`
	// Arrivals is, by family, what Message.Via is of what comes by LOCAL's interface with the
	// address of Setup's Gateways.
	Arrivals map[pfconf.Family]netip.Addr `json:"arrivals,omitempty"`
	// Unheard says, by family, how LOCAL knows that a host of Setup's Beyond does not answer. There
	// is no Fence to it.
	Unheard map[pfconf.Family]string `json:"unheard,omitempty"`
	// Traces: the host's kernel can be asked to trace a cell's packets (Look.Trace).
	Traces bool `json:"traces,omitempty"`
	// Owned are FAKE addresses that this host has configured.
	Owned []string `json:"owned,omitempty"`
	// Processors is how many of them the host's agent may use.
	Processors int `json:"processors,omitempty"`
	// Domain is the routing domain in which the agent works.
	Domain int `json:"domain,omitempty"`
}

// Beyond is how a host reaches others than LOCAL.
type Beyond struct {
	// Gateway and Mirror are the interfaces by which it reaches the family's address of
	// Setup.Gateways and Setup.Beyond. They are empty when they were not asked for, or as NoGateway
	// and NoMirror say.
	Gateway string `json:"gateway,omitempty"`
	Mirror  string `json:"mirror,omitempty"`

	NoGateway    Lack `json:"noGateway,omitzero"`
	NoMirror     Lack `json:"noMirror,omitzero"`
	NoForwarding Lack `json:"noForwarding,omitzero"` // it does not forward the family
	NoPF         Lack `json:"noPF,omitzero"`         // pf, which is on, does not look at these interfaces
}

// Lack is why a host does not have what a target needs. The zero Lack: it has it.
type Lack struct {
	Why string `json:"why,omitempty"`
	// Hint is what a person can do about it, for instance a command.
	Hint string `json:"hint,omitempty"`
	// Failed: Why is a question that failed, and proves no lack.
	Failed bool `json:"failed,omitempty"`
}

// GatewayVariable and MirrorVariable are the variables of the orchestrator's environment with a
// family's address of Setup.Gateways and of Setup.Beyond.
func GatewayVariable(f pfconf.Family) string { return variable("GATEWAY_ADDR", f) }
func MirrorVariable(f pfconf.Family) string  { return variable("MIRROR_ADDR", f) }

func variable(name string, f pfconf.Family) string {
	if f == pfconf.Inet6 {
		return name + "6"
	}
	return name
}

// GatewayHint and MirrorHint say what to set these variables to.
func GatewayHint(f pfconf.Family) string {
	return fmt.Sprintf("set %s to an address of LOCAL's in a network that REMOTE has a second interface in", GatewayVariable(f))
}

func MirrorHint(f pfconf.Family) string {
	return fmt.Sprintf("set %s to a third host behind another interface of REMOTE's", MirrorVariable(f))
}

// RuleChange is one cell's change. The states of Kill go first.
type RuleChange struct {
	Kill   []pfconf.Flow `json:"kill,omitempty"`
	Add    []pfconf.Rule `json:"add,omitempty"`
	Remove []string      `json:"remove,omitempty"`
}

// Look asks for what the host shows of a cell: its evidence.
type Look struct {
	Cell   string
	Labels []string  // of its rules, for REMOTE
	Began  time.Time // no packet of the cell is older
	About  evidence.About
	Trace  Trace // other than NoTrace: that is done, and nothing else looked at
}

// Trace is what a Look does about the trace of a cell's packets. A host traces one cell at a time.
type Trace uint8

// The steps of a trace.
const (
	NoTrace    Trace = iota
	BeginTrace       // have the kernel trace packets of Look.About's flows
	EndTrace         // end that; the evidence has the packets
)

// LostError says that the connection to an agent ended while it was needed.
type LostError struct {
	Err   error
	Noise string // what came in place of a hello, if that was it
}

func (e *LostError) Error() string {
	if e.Noise != "" {
		return fmt.Sprintf("the agent did not answer as one: %v; it said %q", e.Err, e.Noise)
	}
	return fmt.Sprintf("the connection to the agent is lost: %v", e.Err)
}

func (e *LostError) Unwrap() error { return e.Err }
