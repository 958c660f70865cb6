package matrix

import (
	"errors"
	"fmt"

	"pfdivert/matrix/script"
)

// The reason codes. They never change their meaning; docs/reasons.md tells
// people what to do about each.
const (
	// FAIL
	NotDelivered     = "not-delivered"     // what the client sent did not reach the server's socket
	NoReply          = "no-reply"          // what the server sent did not come back to the client's socket
	WrongAddress     = "wrong-address"     // a socket showed other addresses than those of the flow
	WrongData        = "wrong-data"        // something else was received than was sent
	Duplicate        = "duplicate"         // more was received than was sent
	NotRewritten     = "not-rewritten"     // the packet arrived as it was sent, past the packet role
	NotReinjected    = "not-reinjected"    // what the packet role sent on did not arrive
	ControlDelivered = "control-delivered" // a flow to which no rule applies was diverted
	NotCounted       = "not-counted"       // the rule's counters did not move as the cell's packets must move them
	NoBindany        = "no-bindany"        // the kernel refuses to bind a foreign address
	StateMissing     = "state-missing"     // the kernel lacks a state that must be there
	StateLeft        = "state-left"        // the kernel kept a state that must be gone
	NotLost          = "not-lost"          // a packet arrived that must be lost
	NotRefused       = "not-refused"       // the kernel let something be opened that it must refuse
	RefusedOtherwise = "refused-otherwise" // the kernel refuses something with another error than it says
	NotOpened        = "not-opened"        // the kernel refused to open something that it must allow
	NotBypassed      = "not-bypassed"      // a packet did not arrive that a rule must let pass when no one listens
	NotDuplicated    = "not-duplicated"    // of a packet no copy came that its rule says is made
	WrongWay         = "wrong-way"         // a packet that was reinjected left another way than its rule says
	Looped           = "looped"            // a packet that was reinjected met its rule again
	PortBlocked      = "port-blocked"      // the kernel refuses the reversed flow's port
	KernelSplat      = "kernel-splat"      // the kernel reported an oops, a BUG or a warning of itself

	// XPASS
	KnownFailurePassed = "known-failure-passed" // the kernel does what this kind of kernel was known not to do

	// ERROR
	AgentLost      = "agent-lost"      // the connection to an agent ended
	SetupFailed    = "setup-failed"    // a host could not be prepared
	SocketFailed   = "socket-failed"   // a socket could not be opened for a reason that is not the kernel's diverting
	RuleRefused    = "rule-refused"    // the packet filter did not take the rule
	LocalRoute     = "local-route"     // LOCAL has no way to FAKE
	ControlLost    = "control-lost"    // a flow that needs no rule did not arrive
	FenceLost      = "fence-lost"      // the hosts can't hear each other
	FakeOwned      = "fake-owned"      // REMOTE has FAKE configured
	QuestionFailed = "question-failed" // a question to a host was not answered
	TimedOut       = "timed-out"       // the cell did not end in time
	Interrupted    = "interrupted"     // the run was stopped

	// SKIP
	NoFamily   = "no-family"   // a host lacks the address family
	NotClaimed = "not-claimed" // no one says that a kernel of this kind does what the target tests
	NoFeature  = "no-feature"  // REMOTE's kernel lacks what the target tests
	NotJoined  = "not-joined"  // the packets came one by one that were to come joined
	Dangerous  = "dangerous"   // it may crash REMOTE's kernel, and was not allowed to
)

// finding is what ended a cell without a pass.
type finding struct {
	verdict Verdict
	reason  string
	detail  string
}

func (f *finding) Error() string { return f.detail }

// failed accuses the kernel under test.
func failed(reason, format string, a ...any) error {
	return &finding{Fail, reason, fmt.Sprintf(format, a...)}
}

// broken says that the test could not be done.
func broken(reason, format string, a ...any) error {
	return &finding{Error, reason, fmt.Sprintf(format, a...)}
}

// skipped says that the kernel was asked for a feature and proved to lack it.
func skipped(format string, a ...any) error {
	return &finding{Skip, NoFeature, fmt.Sprintf(format, a...)}
}

// lost is how a network tells a socket that nothing came through: codes of
// faults that say something about packets and nothing about the test.
var lost = map[string]bool{
	script.CodeNothing: true, script.CodeEOF: true,
	"ECONNREFUSED": true, "ECONNRESET": true, "ENETUNREACH": true, "EHOSTUNREACH": true,
	"ETIMEDOUT": true, "EPIPE": true, "EPROTO": true, "ENOPROTOOPT": true, "EACCES": true,
	script.CodeSkipped: true,
}

// connectionError turns a failed request into a finding.
func connectionError(host string, err error) error {
	var gone *script.LostError
	if errors.As(err, &gone) {
		return broken(AgentLost, "%s: %v", host, err)
	}
	return broken(QuestionFailed, "%s: %v", host, err)
}
