package script

import (
	"net/netip"

	"pfdivert/pfconf"
)

// Outcome is what a step found.
type Outcome struct {
	Err      *Error           `json:"fault,omitempty"`
	Local    netip.AddrPort   `json:"local,omitzero"`
	Peer     netip.AddrPort   `json:"peer,omitzero"`
	Messages []Message        `json:"messages,omitempty"`
	Tally    *Tally           `json:"tally,omitempty"` // of ReceiveBurst and RelayBurst
	Drops    *Dropped         `json:"drops,omitempty"`
	Counters *pfconf.Counters `json:"counters,omitempty"`
	States   []pfconf.State   `json:"states,omitempty"`
	Middle   *Middle          `json:"middle,omitempty"` // of Middlebox
	Count    int              `json:"count,omitempty"`
	Text     string           `json:"text,omitempty"`
}

// Error is an error on its way through the connection. Code is one of the
// codes below, or the name of a system error ("EADDRINUSE").
type Error struct {
	Code string `json:"code"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

func (f *Error) Error() string { return f.Text }

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

// Transcript is the transcript of one endpoint.
type Transcript struct {
	End  string `json:"end"`
	Text string `json:"text"`
}
