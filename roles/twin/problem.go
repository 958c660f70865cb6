package twin

// Severity of a problem.
type Severity string

// The severities, the worst first.
const (
	Bad  Severity = "bad"  // packets are lost, or go where the rules do not want them
	Warn Severity = "warn" // it works for most packets, or it is a guess
)

// Problem is something wrong with a host, told once for all flows that it spoils.
type Problem struct {
	Severity Severity `json:"severity"`
	// Cause is the problem's kind, a word for machines: "policy-rule", "no-listener".
	Cause string `json:"cause"`
	// What fails for whom, in the host's own words.
	What string `json:"what"`
	// Why is the cause, and whether taking it away in the twin confirmed it.
	Why       string `json:"why"`
	Confirmed bool   `json:"confirmed"`
	// Seen is how it was seen: the packet and where the kernel took it.
	Seen  []string `json:"seen"`
	Check string   `json:"check"` // the command that shows it
	// Fix is what to type. It was tried in the twin and helped; "" when none is known to.
	Fix string `json:"fix"`
	// Price is what the fix takes from other traffic, "" for nothing; Narrow is a fix without it.
	Price  string `json:"price,omitempty"`
	Narrow string `json:"narrow,omitempty"`
	// Flows are the IDs of the flows that fail for it.
	Flows []string `json:"flows"`

	stage int // of the packet's way, for the order
}
