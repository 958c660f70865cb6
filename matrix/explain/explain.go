// Package explain turns what the hosts showed of a cell, or of themselves, into
// the most likely cause and how to mend it. Its rules are data; docs/reasons.md
// lists them.
package explain

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
	// Check is the command that checks it, Mend how to mend it.
	Check string `json:"check,omitempty"`
	Mend  string `json:"mend,omitempty"`
}
