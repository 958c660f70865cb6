// Package agent is the part of the program that works on a tested host: it
// opens the sockets of cells, loads rules and reads states there, at the
// request of an orchestrator that holds the other end of its standard input
// and output. Both ends of that connection are here: Serve and Conn.
package agent

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/roles/endpoint"
	"pfdivert/roles/evidence"
	"pfdivert/roles/lab/bsd"
	"pfdivert/roles/lab/spoil"
)

// Magic comes before the hello. What a login shell prints before it (rc files,
// a greeting) is skipped; it has a NUL byte, which such noise has not.
const Magic = "\x00pfdivert agent\n"

// Protocol is the version of the requests and answers. Both sides are the same
// program, copied for the run; a difference means that an old copy answered.
const Protocol = 2

// Hello is what an agent says first, unasked.
type Hello struct {
	Protocol int    `json:"protocol"`
	GOOS     string `json:"goos"`
	GOARCH   string `json:"goarch"`
	Kernel   string `json:"kernel"` // uname's name and release
	System   string `json:"system"` // uname's version
	Host     string `json:"host"`
	PID      int    `json:"pid"`
	Euid     int    `json:"euid"`
	// SHA256 of the agent's own executable, in hexadecimal; empty in the lab, where it is
	// the orchestrator's by construction.
	SHA256 string `json:"sha256,omitempty"`
	// NoFamily says of each address family that the host lacks why that is
	// known, in words that name the probe.
	NoFamily map[pfconf.Family]string `json:"noFamily,omitempty"`
	// Failed is why the agent can't work; it ends after such a hello.
	Failed *Fault `json:"failed,omitempty"`
}

// Request asks the agent for one thing: exactly one of the pointers is set.
type Request struct {
	ID     uint64  `json:"id"`
	Ping   *Ping   `json:"ping,omitempty"`
	Setup  *Setup  `json:"setup,omitempty"`
	Script *Script `json:"script,omitempty"`
	Rules  *Rules  `json:"rules,omitempty"`
	Log    *Log    `json:"log,omitempty"`
	Look   *Look   `json:"look,omitempty"`
	// Check asks whether the host can be made what the Setup says. It changes nothing.
	Check   *Setup `json:"check,omitempty"`
	Cleanup *Tidy  `json:"cleanup,omitempty"`
	Lab     *Lab   `json:"lab,omitempty"`
	Bye     *Bye   `json:"bye,omitempty"`
}

// Ping is the heartbeat.
type Ping struct{}

// Bye asks the agent to undo all and to answer when that is done. The agent
// ends when its input ends, with or without it.
type Bye struct{}

// Tidy asks the agent to undo what killed ones left on its host; with Look only
// to tell what that is.
type Tidy struct {
	Look bool `json:"look,omitempty"`
}

// Lab asks the agent to build a lab on its host, which stands until the agent undoes all.
type Lab struct {
	Config bsd.Config `json:"config"`
	// By and WaitSeconds are as in Setup; who is waited for is another lab on this host.
	By          string `json:"by,omitempty"`
	WaitSeconds int    `json:"waitSeconds,omitempty"`
}

// Setup makes the host LOCAL or REMOTE of a run.
type Setup struct {
	Remote bool `json:"remote"` // this host is REMOTE: open its packet filter
	// Paths are the hosts' real addresses, by family.
	Paths []Path `json:"paths"`
	// Fakes are the FAKE addresses, as prefixes.
	Fakes []netip.Prefix `json:"fakes"`
	// Rounds is how many echoes make a fence (see endpoint.Fence).
	Rounds int `json:"rounds"`
	// Omit leaves pieces of the set-up out on purpose, for tests: Timestamps, and
	// the packet filter's (nft.Piece).
	Omit []string `json:"omit,omitempty"`
	// Break is what is done to a lab's host at last, to break it. A real host refuses.
	Break []spoil.Step `json:"break,omitempty"`
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
	Firewall      string `json:"firewall,omitempty"`
	KeepsCounters bool   `json:"keepsCounters,omitempty"`
	// NoPF is why the pf of a FreeBSD host can't be used beside ipfw, empty where it can.
	NoPF string `json:"noPF,omitempty"`
	// NoRdr is why that pf can't redirect, empty where it can.
	NoRdr string `json:"noRdr,omitempty"`
	// PFUnknown: NoPF or NoRdr is a question about it that failed, and proves no lack.
	PFUnknown bool `json:"pfUnknown,omitempty"`
	// Interfaces are those that have the addresses of Setup's Paths; of FreeBSD hosts alone.
	Interfaces map[pfconf.Family]string `json:"interfaces,omitempty"`
	// Owned are FAKE addresses that this host has configured.
	Owned []string `json:"owned,omitempty"`
	// Domain is the routing domain in which the agent works.
	Domain int `json:"domain,omitempty"`
}

// Script is a list of steps that the agent carries out in order for one cell.
// A step that fails does not end the script; later steps of its endpoint,
// except close, are skipped and say so.
type Script struct {
	Cell  string `json:"cell"`
	Steps []Step `json:"steps"`
	// Hold: when a step did not find what it wants, the script ends before the next one that
	// closes or removes something. It and all behind it have the fault CodeHeld, and
	// End is not done.
	Hold bool `json:"hold,omitempty"`
	// End closes the cell's endpoints after the last step. Their log stays for
	// a while (see Log).
	End bool `json:"end,omitempty"`
}

// Do names what a step does.
type Do string

// The steps. Those on endpoints are methods of endpoint.Endpoint and never
// wait: they take what has arrived.
const (
	Open      Do = "open"
	Connect   Do = "connect"
	Connected Do = "connected"
	Accept    Do = "accept"
	Send      Do = "send"
	Receive   Do = "receive"
	Relay     Do = "relay"
	// Of many messages; see endpoint.Burst.
	SendBurst    Do = "sendburst"
	ReceiveBurst Do = "receiveburst"
	RelayBurst   Do = "relayburst"
	RelayAll     Do = "relayall" // all packets that wait, with Rewrites
	Turn         Do = "turn"     // the packet received last, round: Data becomes New, Near has the interface's address; see endpoint.Turn
	Drops        Do = "drops"    // what was dropped for Near's divert port and Family; see endpoint.Drops
	Rest         Do = "rest"
	CloseConn    Do = "closeconn"
	Close        Do = "close"
	Fence        Do = "fence"    // wait until the other host has processed all that was sent before
	Counters     Do = "counters" // of the rule Label
	Lookup       Do = "lookup"   // states of Flow
	Kill         Do = "kill"     // states of Flow
	Drop         Do = "drop"     // the TCP socket Near, Far; with Data it must be there
	AskNAT       Do = "natlook"  // the other side of the connection NAT
	TCPState     Do = "tcpstate" // of the TCP socket Near, Far; Data is the one expected, or Gone
)

// Clears reports whether the step closes or removes something.
func (d Do) Clears() bool {
	switch d {
	case Close, CloseConn, Drop, Kill:
		return true
	}
	return false
}

// Step is one step of a script.
type Step struct {
	Do       Do                 `json:"do"`
	End      string             `json:"end,omitempty"` // the endpoint's name within the cell
	Spec     *endpoint.Spec     `json:"spec,omitempty"`
	Apart    Apart              `json:"apart,omitempty"` // Open: in which process
	Data     string             `json:"data,omitempty"`
	New      string             `json:"new,omitempty"` // Relay: what replaces Data; RelayBurst: the burst's line
	Burst    *endpoint.Burst    `json:"burst,omitempty"`
	Seq      uint16             `json:"seq,omitempty"`
	Family   pfconf.Family      `json:"af,omitempty"` // Fence
	Rewrites []endpoint.Rewrite `json:"rewrites,omitempty"`
	Label    string             `json:"label,omitempty"`
	Flow     *pfconf.Flow       `json:"flow,omitempty"`
	Near     netip.AddrPort     `json:"near,omitzero"`
	Far      netip.AddrPort     `json:"far,omitzero"`
	// NAT is what AskNAT asks for.
	NAT *pfconf.NATQuery `json:"nat,omitempty"`
	// Want is what a step of a script with Hold is to find.
	Want *Want `json:"want,omitempty"`
}

// Want is the number of messages of a Rest, or the least that Counters are.
type Want struct {
	Messages int             `json:"messages,omitempty"`
	Counters pfconf.Counters `json:"counters,omitzero"`
}

// As reports whether the outcome is as the step wants it.
func (st *Step) As(o *Outcome) bool {
	if st.Want == nil {
		return true
	}
	if c, w := o.Counters, st.Want.Counters; st.Do == Counters {
		return c != nil && c.Matched >= w.Matched && c.Done >= w.Done && c.Replies >= w.Replies && c.States >= w.States
	}
	return o.Fault == nil && len(o.Messages) == st.Want.Messages
}

// Outcome is what a step found.
type Outcome struct {
	Fault    *Fault             `json:"fault,omitempty"`
	Local    netip.AddrPort     `json:"local,omitzero"`
	Peer     netip.AddrPort     `json:"peer,omitzero"`
	Messages []endpoint.Message `json:"messages,omitempty"`
	Tally    *endpoint.Tally    `json:"tally,omitempty"` // of ReceiveBurst and RelayBurst
	Drops    *endpoint.Dropped  `json:"drops,omitempty"`
	Counters *pfconf.Counters   `json:"counters,omitempty"`
	States   []pfconf.State     `json:"states,omitempty"`
	Count    int                `json:"count,omitempty"`
	Text     string             `json:"text,omitempty"`
}

// Fault is an error on its way through the connection. Code is one of the
// codes below, or the name of a system error ("EADDRINUSE").
type Fault struct {
	Code string `json:"code"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

func (f *Fault) Error() string { return f.Text }

// The codes of faults that are no system errors.
const (
	CodeNothing     = "nothing"     // nothing had arrived
	CodeEOF         = "eof"         // the stream had ended
	CodeUnsupported = "unsupported" // this system can't
	CodeNoSocket    = "nosocket"    // there is no such TCP socket
	CodeNoState     = "nostate"     // the filter has no such state
	CodeSkipped     = "skipped"     // an earlier step of the endpoint failed
	CodeHeld        = "held"        // see Script.Hold
	CodeBusy        = "busy"        // another run is using the host
	CodeStale       = "stale"       // a killed run left what can't be undone
	CodeSetup       = "setup"       // the host lacks what a run needs, see CheckItem
	CodeMissing     = "missing"     // the kernel was asked for a feature and proved to lack it
	CodeOther       = "error"
)

// Hinter is an error that knows what its reader can do about it.
type Hinter interface{ Hint() string }

// FaultOf makes an error fit for the wire; nil stays nil.
func FaultOf(err error) *Fault {
	if err == nil {
		return nil
	}
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	f = &Fault{Code: CodeOther, Text: err.Error()}
	var hinter Hinter
	if errors.As(err, &hinter) {
		f.Hint = hinter.Hint()
	}
	var errno syscall.Errno
	var missing interface{ Missing() string }
	switch {
	case errors.As(err, &missing):
		f.Code = CodeMissing
	case errors.Is(err, endpoint.ErrNothing):
		f.Code = CodeNothing
	case errors.Is(err, io.EOF):
		f.Code = CodeEOF
	case errors.Is(err, endpoint.ErrUnsupported):
		f.Code = CodeUnsupported
	case errors.Is(err, endpoint.ErrNoSocket):
		f.Code = CodeNoSocket
	case errors.Is(err, pfconf.ErrNoState):
		f.Code = CodeNoState
	case errors.As(err, &errno):
		if name := unix.ErrnoName(errno); name != "" {
			f.Code = name
		}
	}
	return f
}

// Rules asks for changes of the rule set. They are made together where the
// filter can; each has its own answer.
type Rules struct {
	Changes []Change `json:"changes"`
}

// Change is one cell's change. The states of Kill go first.
type Change struct {
	Kill   []pfconf.Flow `json:"kill,omitempty"`
	Add    []pfconf.Rule `json:"add,omitempty"`
	Remove []string      `json:"remove,omitempty"`
}

// Log asks for the transcripts of a cell.
type Log struct {
	Cell string `json:"cell"`
}

// Look asks for what the host shows of a cell: its evidence.
type Look struct {
	Cell   string         `json:"cell"`
	Labels []string       `json:"labels,omitempty"` // of its rules, for REMOTE
	Began  time.Duration  `json:"began"`            // the cell, since the hello came
	About  evidence.About `json:"about"`
}

// Entry is the transcript of one endpoint.
type Entry struct {
	End  string `json:"end"`
	Text string `json:"text"`
}

// Answer answers the request with its ID.
type Answer struct {
	ID       uint64    `json:"id"`
	Fault    *Fault    `json:"fault,omitempty"`
	Facts    *Facts    `json:"facts,omitempty"`
	Outcomes []Outcome `json:"outcomes,omitempty"`
	Faults   []*Fault  `json:"faults,omitempty"` // of Rules, one per change
	Log      []Entry   `json:"log,omitempty"`

	Evidence *evidence.Cell `json:"evidence,omitempty"` // of Look

	Checks []CheckItem `json:"checks,omitempty"`
	Left   []*Left     `json:"left,omitempty"` // of Tidy
	Lab    *bsd.Lab    `json:"lab,omitempty"`
	// Notice is something that a person may want to know now. It answers no
	// request: ID is 0.
	Notice string `json:"notice,omitempty"`
}

// CheckItem is one thing that a run needs of a host.
type CheckItem struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Warn: it is not known to be wrong, or only for some targets. OK is set as well.
	Warn bool `json:"warn,omitempty"`
	// Failed: it could not be asked. OK is not set.
	Failed bool   `json:"failed,omitempty"`
	Detail string `json:"detail,omitempty"` // what was found
	Cure   string `json:"cure,omitempty"`   // the command that fixes it
}

// check refuses a request that no orchestrator of this program sends.
func (r *Request) check() error {
	const maxSteps, maxChanges, maxPrefixes, maxLabels = 64, 4096, 64, 8
	n := 0
	for _, set := range []bool{r.Ping != nil, r.Setup != nil, r.Script != nil, r.Rules != nil, r.Log != nil, r.Look != nil, r.Check != nil, r.Cleanup != nil, r.Lab != nil, r.Bye != nil} {
		if set {
			n++
		}
	}
	switch {
	case n != 1:
		return fmt.Errorf("request %d asks for %d things, not one", r.ID, n)
	case r.Script != nil && len(r.Script.Steps) > maxSteps:
		return fmt.Errorf("script of %d steps is over the limit of %d", len(r.Script.Steps), maxSteps)
	case r.Rules != nil && len(r.Rules.Changes) > maxChanges:
		return fmt.Errorf("%d changes of rules are over the limit of %d", len(r.Rules.Changes), maxChanges)
	}
	if l := r.Look; l != nil {
		if len(l.Labels) > maxLabels {
			return fmt.Errorf("%d labels of one cell are over the limit of %d", len(l.Labels), maxLabels)
		}
		if err := l.About.Validate(); err != nil {
			return err
		}
	}
	for _, s := range []*Setup{r.Setup, r.Check} {
		if s != nil && len(s.Paths)+len(s.Fakes)+len(s.Capture) > maxPrefixes {
			return fmt.Errorf("%d addresses are over the limit of %d", len(s.Paths)+len(s.Fakes)+len(s.Capture), maxPrefixes)
		}
	}
	return nil
}
