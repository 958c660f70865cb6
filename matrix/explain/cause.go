package explain

import "slices"

// Cause is why packets are lost, or do what they should not.
type Cause struct {
	// Code never changes its meaning; docs/reasons.md has a section for each.
	Code string
	// Firewalls are those whose hosts have such a cause; nil for all.
	Firewalls []string
	// Host looks at a host alone: at REMOTE, or at LOCAL with OnLocal. nil: the host
	// does not matter.
	Host    func(*HostFacts) bool
	OnLocal bool
	// Chains are those of someone else's packet filter that do it: the host has one of them at
	// least. nil: chains do not matter. {RULES} stands for those that it has.
	Chains []chains
	// Maybe: what the host shows does harm to some packets, perhaps not to those that matter.
	Maybe bool
	// Cell looks at the cell. nil: any that did not pass.
	Cell func(*Case) bool
	// Advice is the text for a firewall's systems; "" has that for those that it does not name.
	Advice map[string]Advice
}

// Advice says what is wrong in a sentence, which command checks it, and what fixes it. {FAKE},
// {LOCAL}, {REMOTE}, {NIC}, {MARK}, {TABLE}, {DIVERT}, {DETAIL} and more stand for the cell's
// (Case.filler).
type Advice struct{ Likely, Check, Mend string }

// anywhere is the advice where the system makes no difference.
func anywhere(likely, check, fix string) map[string]Advice {
	return map[string]Advice{"": {likely, check, fix}}
}

func (c *Cause) fits(k *Case) bool {
	if c.Firewalls != nil && !slices.Contains(c.Firewalls, k.Firewall) {
		return false
	}
	h := &k.Remote
	if c.OnLocal {
		h = &k.Local
	}
	return c.onHost(h) && (c.Cell == nil || c.Cell(k))
}

// onHost reports whether the host has what the cause needs of it.
func (c *Cause) onHost(h *HostFacts) bool {
	return (c.Host == nil || c.Host(h)) && (c.Chains == nil || len(h.having(c.Chains)) > 0)
}

func (c *Cause) advice(firewall string) Advice {
	a, ok := c.Advice[firewall]
	if !ok && (firewall == xtables || firewall == bpf || firewall == lookup) {
		a, ok = c.Advice[nftables]
	}
	if !ok {
		return c.Advice[""]
	}
	return a
}

// The names of packet filters (pfconf.Firewall.Name).
const (
	nftables = "nftables"
	pf       = "pf"
	ipfw     = "ipfw"
	// xtables advises about rules of iptables, where that is other than about those of nftables.
	xtables = "x_tables"
	// bpf advises about entries of programs of BPF, as well.
	bpf = "bpf"
	// lookup advises about entries of the program of sk_lookup, as well.
	lookup = "bpf-lookup"
)

var (
	linux = []string{nftables}
	bsd   = []string{pf, ipfw}
)

// byDoctor is the Cell of causes that only a look at all rules of a host finds (Diverted).
func byDoctor(*Case) bool { return false }

// causes are all, in the order in which they are tried: what explains few cases before what
// explains many.
var causes = slices.Concat(hostCauses, routeCauses, ruleCauses, filterCauses, matchCauses, socketCauses, resultCauses,
	lastCauses)
