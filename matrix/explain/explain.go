// Package explain turns what the hosts showed of a cell, or of themselves, into
// the most likely cause and how to fix it. Its rules are data; docs/reasons.md
// lists them.
package explain

// NotLookedAt is the cause that is named when the hosts were not looked at in full.
const NotLookedAt = "not-looked-at"

// Explanation says why a cell did not pass, as far as the evidence tells.
type Explanation struct {
	// Cause is a code that never changes its meaning (docs/reasons.md).
	Cause string `json:"cause"`
	// Expected says what should have happened, LastSeen where the packet that is missing
	// was last seen.
	Expected string `json:"expected"`
	LastSeen string `json:"lastSeen,omitempty"`
	// Likely is the most likely cause, in a sentence.
	Likely string `json:"likely"`
	// Check is the command that checks it.
	Check string `json:"check,omitempty"`
	Mend  string `json:"mend,omitempty"`
}

// Explain returns the explanation of a cell that did not pass: of all causes that fit what is
// known, the first. There is always one.
func Explain(c Case) *Explanation {
	for _, cause := range causes {
		if !cause.fits(&c) {
			continue
		}
		a := cause.advice(c.adviser(&cause))
		fill := c.filler(&cause)
		return &Explanation{
			Cause: cause.Code, Expected: fill.Replace(c.expected()), LastSeen: fill.Replace(c.tracedTo(c.lastSeen())),
			Likely: fill.Replace(a.Likely), Check: fill.Replace(a.Check), Mend: fill.Replace(a.Mend),
		}
	}
	return nil // the last cause fits everything
}

// Problem is something that is wrong with a host, whatever is sent to it.
type Problem struct {
	Cause string `json:"cause"`
	// Maybe: it depends on the packets; a firewall that drops is none by itself.
	Maybe  bool   `json:"maybe,omitempty"`
	Likely string `json:"likely"`
	Check  string `json:"check,omitempty"`
	Mend   string `json:"mend,omitempty"`
}

// Problems returns what the facts of a host show to be wrong with it. What a host needs depends
// on its part: h.Remote.
func Problems(h HostFacts, firewall string) []Problem {
	var all []Problem
	c := Case{Firewall: firewall}
	if h.Remote {
		c.Remote = h
	} else {
		c.Local = h
	}
	for _, cause := range causes {
		if cause.Host == nil && cause.Chains == nil || cause.OnLocal == h.Remote || !cause.onHost(&h) {
			continue
		}
		all = append(all, cause.problem(&c, cause.Maybe))
	}
	return all
}
