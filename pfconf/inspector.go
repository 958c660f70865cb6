package pfconf

import "context"

// Inspector shows a person what a host's packet filter holds, and clears what is this
// program's, in the same words for every filter. It loads no rules. Its questions change nothing.
type Inspector interface {
	Overview(ctx context.Context) (Overview, error)
	// Places lists where rules are: pf's anchors, the tables of nf_tables, ipfw's sets.
	Places(ctx context.Context) ([]Place, error)
	// OwnRules lists this program's rules.
	OwnRules(ctx context.Context) ([]LoadedRule, error)
	// States lists the whole state table. Their IDs are known.
	States(ctx context.Context) ([]State, error)
	// Kill removes these of the States, and tells how many were still there.
	Kill(ctx context.Context, states []State) (int, error)
	// KillLabel removes the states that rules with the label made; "" stands for all
	// of this program's rules that are loaded.
	KillLabel(ctx context.Context, label string) (int, error)
	// Flush removes this program's rules and says what it removed.
	Flush(ctx context.Context) ([]string, error)
	// Timeouts are in seconds.
	Timeouts(ctx context.Context) ([]Setting, error)
	Limits(ctx context.Context) ([]Setting, error)
	Close() error
}

// Overview is a filter in one look.
type Overview struct {
	Filter  string // "pf", "nftables", "ipfw"
	Enabled bool   // it looks at packets
	States  int    // in the whole table
	Own     int    // rules of this program
}

// Place is where rules are.
type Place struct {
	Name string
	Own  bool // it is this program's
}

// LoadedRule is one of this program's rules as the filter has it.
type LoadedRule struct {
	Label   string
	Packets uint64
	Place   string
	Text    string // in the filter's own language; empty where that can't be asked for
	// Expressions are nf_tables' (NFTA_RULE_EXPRESSIONS), and Entry is that of a table of
	// iptables-legacy or, with IPv6, of ip6tables-legacy, in place of Text.
	Expressions, Entry []byte
	IPv6               bool
}

// Setting is a number that the filter works with.
type Setting struct {
	// Name is pf.conf(5)'s for what it is, on every system; the system's own for what pf has not.
	Name  string
	Value int64
	// Unit is empty for what the name says, or "states".
	Unit string
	// System is the system's name for it.
	System string
}
