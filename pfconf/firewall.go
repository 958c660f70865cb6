package pfconf

import "context"

// Firewall is a host's packet filter, as far as this program uses it. The set
// of rules that it holds is the program's own (pf's anchor, an nftables
// table); rules of the host are never touched. All methods may be called at
// the same time from several goroutines.
//
// An error always means that the question was not answered or the change not
// made, never that something is absent.
type Firewall interface {
	// Name is the filter's own name: "pf", "nftables".
	Name() string

	// Change adds rules and removes those with the labels in remove, in one
	// atomic load: afterwards either all of it is in force or none. Adding a
	// label that is there and removing one that is not are errors. Changes
	// that arrive while one is being loaded are loaded together next.
	Change(ctx context.Context, add []Rule, remove []string) error

	// Load replaces the whole set by these rules in one atomic load. All
	// counters begin at zero. It takes its turn among the Changes.
	Load(ctx context.Context, rules []Rule) error

	// KeepsCounters reports whether a rule that stays keeps its counters when
	// others change (nftables), or begins again at zero (pf).
	KeepsCounters() bool

	// Counters reads the counters of the rules with these labels. A label that
	// is not loaded is an error.
	Counters(ctx context.Context, labels []string) (map[string]Counters, error)

	StateTable

	// Close removes the rules, puts back what was there before Open and frees
	// what the filter holds open.
	Close(ctx context.Context) error
}

// Change is what Firewall.Change does: the rules to add and the labels of those to remove.
type Change struct {
	Add    []Rule
	Remove []string
}

// Gatherer is a Firewall that makes the changes of many in one load.
type Gatherer interface {
	// ChangeEach makes each of the changes or does not make it, and returns an error for each that
	// it did not make.
	ChangeEach(ctx context.Context, changes []Change) []error
}

// Shower is a Firewall that can show its rules.
type Shower interface {
	// Show returns the rules with these labels as the system's own tool would show them. A label
	// that is not loaded is an error.
	Show(ctx context.Context, labels []string) (map[string]string, error)
}

// Shaper is a Firewall with dummynet(4).
type Shaper interface {
	// Pipe makes a pipe that lets packets through, or with lossy loses them all, or changes one
	// that it has made. Close removes them.
	Pipe(ctx context.Context, number uint16, lossy bool) error
}

// Counters are what a rule has counted since it was loaded.
type Counters struct {
	// Matched counts packets that the rule matched; Done those for which its
	// action could be carried out as well (on nftables a tproxy statement that
	// finds no transparent socket ends the rule between the two). On pf both
	// are the rule's Packets counter.
	Matched uint64 `json:"matched"`
	Done    uint64 `json:"done"`
	// Replies counts the packets that came back to a divert-reply rule's
	// client through the rule; nftables only.
	Replies uint64 `json:"replies,omitempty"`
	// Kernel counts ICMPv6 echo replies that the kernel itself wanted to send
	// for the diverted address and that the rule stopped; nftables only.
	Kernel uint64 `json:"kernel,omitempty"`
	// States counts the states that the rule created; pf only. A divert-packet
	// rule counts nothing else there.
	States uint64 `json:"states,omitempty"`
}
