package faults

import (
	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// Part is one of the cells that a target runs.
type Part struct {
	matrix.Target
	Mode   matrix.Mode
	Second bool // of a reuse target
	System string
}

// parts are a target's cells in their order, on a system.
func parts(system string, t matrix.Target) []Part {
	all := []Part{{t, t.First, false, system}}
	if t.Second != (matrix.Mode{}) {
		all = append(all, Part{t, t.Second, true, system})
	}
	return all
}

func (p Part) packet() bool { return p.Mode.IsDivertPacket() }
func (p Part) tcp() bool    { return p.Proto == pfconf.TCP }

// to reports whether the client is on LOCAL and its packets go to FAKE.
func (p Part) to() bool { return p.Mode.IsDivertTo() }

// reply reports whether the client is on REMOTE and bound to FAKE.
func (p Part) reply() bool { return p.Mode.IsDivertReply() }

// back reports whether something must come back to a cell's client on REMOTE.
func (p Part) back() bool {
	return p.Mode.Answers() || p.tcp() && p.reply()
}

// answered reports whether its answers come to the client without the rule: pf knows by the state
// of any rule which socket sent, but for ICMP.
func (p Part) answered() bool {
	return p.System == "openbsd" && p.reply() && p.Proto != pfconf.ICMP
}

// reuse reports whether it is a cell of a reuse target, which runs no control.
func (p Part) reuse() bool { return p.Target.Second != matrix.Mode{} }

// afterTo reports whether it follows a divert-to cell of the same flow.
func (p Part) afterTo() bool { return p.Second && p.First.IsDivertTo() }
