package gather

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/netlink"
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

// chain is one of nf_tables.
type chain struct {
	family      uint8
	table, name string
	based       bool // at a hook
	hook        uint32
	priority    int32
	kind        string
	does        []string // what its rules do
}

// readChains lists the base chains of nf_tables, one a line, with what their rules do to
// packets; those of rules that only match and count are left out, and this program's own, which
// are shown with the cells.
//
//	table ip filter chain input type filter hook input priority 0: drop
func readChains(own string) (text string, err error) {
	s, err := netlink.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for range chainTries {
		var chains []*chain
		if chains, err = listChains(s); err == nil {
			return chainsText(chains, own), nil
		}
		if !errors.Is(err, netlink.ErrInterrupted) {
			break
		}
	}
	return "", err
}

// chainTries is how often chains are listed that others change meanwhile.
const chainTries = 5

// listChains reads the chains with what their rules do.
func listChains(s *netlink.Socket) ([]*chain, error) {
	var all []*chain
	type key struct {
		family      uint8
		table, name string
	}
	known := map[key]*chain{}
	list := func(message uint16, take func(family uint8, b []byte)) error {
		r := s.Request()
		r.Netfilter(netlink.Nft(message), unix.NLM_F_DUMP, unix.NFPROTO_UNSPEC, 0)
		return s.Dump(r, func(m netlink.Message) error {
			take(m.Netfilter())
			return nil
		})
	}
	err := list(unix.NFT_MSG_GETCHAIN, func(family uint8, b []byte) {
		c := parseChain(family, b)
		all, known[key{family, c.table, c.name}] = append(all, c), c
	})
	if err != nil {
		return nil, fmt.Errorf("list of chains: %w", err)
	}
	err = list(unix.NFT_MSG_GETRULE, func(family uint8, b []byte) {
		c := known[key{family, textOf(b, unix.NFTA_RULE_TABLE), textOf(b, unix.NFTA_RULE_CHAIN)}]
		if c != nil { // else it was made meanwhile
			c.does = append(c.does, doings(netlink.Attribute(b, unix.NFTA_RULE_EXPRESSIONS))...)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list of rules: %w", err)
	}
	return all, nil
}

func parseChain(family uint8, b []byte) *chain {
	c := &chain{
		family: family, table: textOf(b, unix.NFTA_CHAIN_TABLE), name: textOf(b, unix.NFTA_CHAIN_NAME),
		kind: textOf(b, unix.NFTA_CHAIN_TYPE),
	}
	if hook := netlink.Attribute(b, unix.NFTA_CHAIN_HOOK); hook != nil {
		c.based, c.hook = true, numberOf(hook, unix.NFTA_HOOK_HOOKNUM)
		c.priority = int32(numberOf(hook, unix.NFTA_HOOK_PRIORITY))
	}
	policy := netlink.Attribute(b, unix.NFTA_CHAIN_POLICY)
	if len(policy) == 4 && binary.BigEndian.Uint32(policy) == 0 { // NF_DROP
		c.does = []string{"drop"}
	}
	return c
}

func chainsText(chains []*chain, own string) string {
	// What a chain without a hook does is its table's: other chains jump there.
	jumped := map[string][]string{}
	for _, c := range chains {
		if !c.based && !strings.HasPrefix(c.name, own+"-") { // its chains in iptables' tables
			jumped[c.tableText()] = append(jumped[c.tableText()], c.does...)
		}
	}
	var lines []string
	for _, c := range chains {
		if c.table == own || !c.based || !ofIP[c.family] || int(c.hook) >= len(hooks) {
			continue
		}
		all := slices.Clone(c.does)
		if slices.Contains(all, jumps) {
			all = append(all, jumped[c.tableText()]...)
		}
		all = slices.DeleteFunc(all, func(s string) bool { return s == jumps })
		slices.Sort(all)
		if all = slices.Compact(all); len(all) == 0 {
			continue
		}
		lines = append(lines, fmt.Sprintf("table %s chain %s type %s hook %s priority %d: %s",
			c.tableText(), c.name, c.kind, hooks[c.hook], c.priority, strings.Join(all, ", ")))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

const jumps = "jump"

// hooks by NF_INET_*.
var hooks = []string{"prerouting", "input", "forward", "output", "postrouting"}

// ofIP are the families whose chains are at the hooks of IP; netdev's and bridge's have the
// same numbers for others.
var ofIP = map[uint8]bool{unix.NFPROTO_IPV4: true, unix.NFPROTO_IPV6: true, unix.NFPROTO_INET: true}

var families = map[uint8]string{
	unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet",
	unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_ARP: "arp",
}

func (c *chain) tableText() string { return families[c.family] + " " + c.table }

// textOf returns an attribute's text, which ends with a NUL.
func textOf(b []byte, kind uint16) string {
	return strings.TrimRight(string(netlink.Attribute(b, kind)), "\x00")
}

// numberOf returns an attribute's number of 32 bits, 0 when there is none.
func numberOf(b []byte, kind uint16) uint32 {
	if b := netlink.Attribute(b, kind); len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// doings says what a rule with the expressions does to a packet, in the words of nft(8).
func doings(expressions []byte) []string {
	var all []string
	for _, e := range netlink.Attributes(expressions) {
		if does := doing(textOf(e, unix.NFTA_EXPR_NAME), netlink.Attribute(e, unix.NFTA_EXPR_DATA)); does != "" {
			all = append(all, does)
		}
	}
	return all
}

// doing says what an expression does; "" when it only matches, counts or loads.
func doing(name string, b []byte) string {
	switch name {
	case "immediate":
		verdict := netlink.Attribute(netlink.Attribute(b, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT)
		if verdict == nil {
			return ""
		}
		switch int32(numberOf(verdict, unix.NFTA_VERDICT_CODE)) {
		case 0: // NF_DROP
			return "drop"
		case unix.NFT_JUMP, unix.NFT_GOTO:
			return jumps
		}
	case "nat":
		if numberOf(b, unix.NFTA_NAT_TYPE) == unix.NFT_NAT_DNAT {
			return "dnat"
		}
		return "snat"
	case "meta":
		if netlink.Attribute(b, unix.NFTA_META_SREG) != nil && numberOf(b, unix.NFTA_META_KEY) == unix.NFT_META_MARK {
			return "mark set"
		}
	case "ct":
		if netlink.Attribute(b, unix.NFTA_CT_SREG) != nil && numberOf(b, unix.NFTA_CT_KEY) == unix.NFT_CT_ZONE {
			return "ct zone set"
		}
	case "target":
		return targets[textOf(b, unix.NFTA_TARGET_NAME)]
	}
	return statements[name]
}

// statements are expressions that do one thing.
var statements = map[string]string{
	"reject": "reject", "notrack": "notrack", "redir": "redirect", "masq": "masquerade", "tproxy": "tproxy",
	"queue": "queue",
}

// targets are those of iptables that do the same.
var targets = map[string]string{
	"REJECT": "reject", "REDIRECT": "redirect", "MASQUERADE": "masquerade", "DNAT": "dnat", "SNAT": "snat",
	"TPROXY": "tproxy", "NFQUEUE": "queue", "MARK": "mark set", "CONNMARK": "mark set", "NOTRACK": "notrack",
}
