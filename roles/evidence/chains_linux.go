package evidence

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// readFilters asks for the chains that are not this program's.
func readFilters(o Options) func(context.Context) (asking, error) {
	return func(context.Context) (asking, error) {
		var q asking
		text, err := readChains(o.Own)
		if text == "" {
			text = nobodys
		}
		q.answer("nft list ruleset", text, err)
		return q, nil
	}
}

// readChains lists the base chains of nf_tables, one a line, with what their rules do to
// packets; those of rules that only match and count are left out, and this program's own, which
// are shown with the cells.
//
//	table ip filter chain input type filter hook input priority 0: drop
func readChains(own string) (string, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.CloseLasting() }()
	chains, err := conn.ListChains()
	if err != nil {
		return "", err
	}
	// What a chain without a hook does is its table's: other chains jump there.
	does := map[*nftables.Chain][]string{}
	jumped := map[string][]string{}
	for _, c := range chains {
		if c.Table.Name == own {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return "", fmt.Errorf("chain %s: %w", c.Name, err)
		}
		for _, r := range rules {
			does[c] = append(does[c], doings(r.Exprs)...)
		}
		if c.Hooknum == nil {
			jumped[tableText(c.Table)] = append(jumped[tableText(c.Table)], does[c]...)
		}
	}
	var lines []string
	for _, c := range chains {
		if c.Table.Name == own || c.Hooknum == nil || c.Priority == nil || !ofIP[c.Table.Family] {
			continue
		}
		all := does[c]
		if slices.Contains(all, jumps) {
			all = append(all, jumped[tableText(c.Table)]...)
		}
		if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			all = append(all, "drop")
		}
		all = slices.DeleteFunc(all, func(s string) bool { return s == jumps })
		slices.Sort(all)
		if all = slices.Compact(all); len(all) == 0 {
			continue
		}
		lines = append(lines, fmt.Sprintf("table %s chain %s type %s hook %s priority %d: %s",
			tableText(c.Table), c.Name, c.Type, hooks[*c.Hooknum], *c.Priority, strings.Join(all, ", ")))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

const jumps = "jump"

var hooks = map[nftables.ChainHook]string{
	*nftables.ChainHookPrerouting: "prerouting", *nftables.ChainHookInput: "input", *nftables.ChainHookForward: "forward",
	*nftables.ChainHookOutput: "output", *nftables.ChainHookPostrouting: "postrouting",
}

// ofIP are the families whose chains are at the hooks of IP; netdev's and bridge's have the
// same numbers for others.
var ofIP = map[nftables.TableFamily]bool{
	nftables.TableFamilyIPv4: true, nftables.TableFamilyIPv6: true, nftables.TableFamilyINet: true,
}

var families = map[nftables.TableFamily]string{
	nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
	nftables.TableFamilyNetdev: "netdev", nftables.TableFamilyBridge: "bridge", nftables.TableFamilyARP: "arp",
}

func tableText(t *nftables.Table) string { return families[t.Family] + " " + t.Name }

// doings says what a rule does to a packet, in the words of nft(8).
func doings(rule []expr.Any) []string {
	var all []string
	for _, e := range rule {
		switch e := e.(type) {
		case *expr.Verdict:
			switch e.Kind {
			case expr.VerdictDrop:
				all = append(all, "drop")
			case expr.VerdictJump, expr.VerdictGoto:
				all = append(all, jumps)
			}
		case *expr.Reject:
			all = append(all, "reject")
		case *expr.Notrack:
			all = append(all, "notrack")
		case *expr.Redir:
			all = append(all, "redirect")
		case *expr.Masq:
			all = append(all, "masquerade")
		case *expr.NAT:
			if e.Type == expr.NATTypeDestNAT {
				all = append(all, "dnat")
			} else {
				all = append(all, "snat")
			}
		case *expr.TProxy:
			all = append(all, "tproxy")
		case *expr.Queue:
			all = append(all, "queue")
		case *expr.Meta:
			if e.SourceRegister && e.Key == expr.MetaKeyMARK {
				all = append(all, "mark set")
			}
		case *expr.Ct:
			if e.Register == 0 && e.Key == expr.CtKeyZONE { // read from no register, it is one that sets
				all = append(all, "ct zone set")
			}
		case *expr.Target:
			if does := targets[e.Name]; does != "" {
				all = append(all, does)
			}
		}
	}
	return all
}

// targets are those of iptables that do the same.
var targets = map[string]string{
	"REJECT": "reject", "REDIRECT": "redirect", "MASQUERADE": "masquerade", "DNAT": "dnat", "SNAT": "snat",
	"TPROXY": "tproxy", "NFQUEUE": "queue", "MARK": "mark set", "CONNMARK": "mark set", "NOTRACK": "notrack",
}
