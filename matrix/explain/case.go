package explain

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
)

// Mechanism is what is diverted.
type Mechanism string

// The ways.
const (
	DivertTo    Mechanism = "to"         // divert-to: from LOCAL to FAKE, to a socket on REMOTE
	DivertReply Mechanism = "reply"      // divert-reply: from FAKE on REMOTE to LOCAL, and back
	PacketIn    Mechanism = "packet-in"  // divert-packet, from LOCAL to REMOTE
	PacketOut   Mechanism = "packet-out" // divert-packet, from REMOTE to LOCAL
	DivertBoth  Mechanism = "both"       // divert-packet and divert-to, one after the other
	Translated  Mechanism = "translated" // rdr-to, to a socket on REMOTE
)

// Case is a cell that did not pass.
type Case struct {
	Reason, Detail string
	Firewall       string // of REMOTE (pfconf.Firewall.Name)
	PFOn           bool   // pf was switched on beside it when the run began
	// ByPF: the rule is one of that pf.
	ByPF bool
	// Should says what should have happened, where Mechanism and Proto do not tell.
	Should string
	// Claim: it is a sentence of the kernel's manual that is tested; Long: with messages that make
	// long packets.
	Claim, Long bool
	// Between: client, server and rule are in network namespaces of REMOTE's own, and nothing of
	// the hosts matters.
	Between bool

	Proto               pfconf.Proto
	Mechanism           Mechanism
	Answered            bool // something comes back to the client
	Local, Remote       HostFacts
	LocalAddr           netip.Addr
	RemoteAddr          netip.Addr
	Fake                netip.Addr
	Divert              netip.AddrPort // where the rule diverts to
	Server              uint16         // the server's port, 0 where there is none
	Counters            pfconf.Counters
	CountersKnown       bool
	StatesFirst, Second bool // the filter counts states; the cell is a reuse target's second

	others string // the rules of someone else's that it is about, where they are known
}

// is reports whether the finding has one of these reason codes.
func (c *Case) is(reasons ...string) bool { return slices.Contains(reasons, c.Reason) }

func (c *Case) says(words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(c.Detail, w) })
}

// ofDivertSocket reports whether it is about what a divert socket says of a packet besides the
// packet itself.
func (c *Case) ofDivertSocket() bool { return c.says("the packet came with") }

// Packet reports whether packets are handed to user space.
func (c *Case) Packet() bool {
	return c.Mechanism == PacketIn || c.Mechanism == PacketOut || c.Mechanism == DivertBoth
}

// dueInUserSpace reports whether what did not arrive was due at a divert socket, not at the client
// or the server.
func (c *Case) dueInUserSpace() bool {
	return c.Packet() && c.is("not-delivered") && c.says(": nothing arrived") && !c.says("client: ", "server: ")
}
func (c *Case) to() bool    { return c.Mechanism == DivertTo }
func (c *Case) reply() bool { return c.Mechanism == DivertReply }
func (c *Case) v6() bool    { return c.Fake.Is6() }

// lost: packets did not arrive, or their answers.
func (c *Case) lost() bool {
	return c.is("not-delivered", "no-reply", "control-lost", "not-reinjected")
}

// diverted: packets from LOCAL must reach a socket by way of REMOTE's table of diverted packets,
// and did not. Of what goes out by a divert-reply rule only TCP has such before it arrives.
func (c *Case) diverted() bool {
	return c.lost() && c.to() || c.reply() && (c.is("no-reply") || c.is("not-delivered") && c.Proto == pfconf.TCP)
}

// comesBack reports whether the client on REMOTE gets packets.
func (c *Case) comesBack() bool { return c.Answered || c.Proto == pfconf.TCP }

// fromFake: packets from FAKE must reach LOCAL, and may not have. A server that answers has got
// them.
func (c *Case) fromFake() bool {
	if c.reply() && c.is("no-reply") {
		return c.Proto == pfconf.TCP || c.Proto == pfconf.ICMP
	}
	return c.lost() && (c.reply() || c.to() && c.Proto == pfconf.TCP)
}

// matched reports whether the rule matched a packet, and whether that is known; unmatched that it
// is known that it did not.
func (c *Case) matched() bool   { return c.CountersKnown && c.Counters.Matched+c.Counters.States > 0 }
func (c *Case) unmatched() bool { return c.CountersKnown && !c.matched() }

// undone: the rule matched and its action could not be carried out.
func (c *Case) undone() bool {
	return c.CountersKnown && !c.StatesFirst && c.Counters.Done < c.Counters.Matched
}

// rule is the text of the cell's rules as the filter shows them, "" when it is not known.
func (c *Case) rule() string {
	var b strings.Builder
	for _, r := range c.Remote.Rules {
		b.WriteString(r.Text + "\n")
	}
	return b.String()
}

// ruleLacks reports whether the rule is known and has none of these words, of nftables and of
// iptables.
func (c *Case) ruleLacks(words ...string) bool {
	return strings.TrimSpace(c.rule()) != "" && !c.ruleHas(words...)
}

func (c *Case) ruleHas(words ...string) bool {
	text := c.rule()
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// ofXT reports whether the rules are x_tables', and ofLegacy whether they are iptables-legacy's.
func (c *Case) ofXT() bool     { return c.Firewall == nftables && c.ruleHas(" -s ") }
func (c *Case) ofLegacy() bool { return c.ofXT() && c.ruleHas("tables-legacy ") }

// ofBPF reports whether they are entries of programs of BPF.
func (c *Case) ofBPF() bool {
	return c.Firewall == nftables && c.ruleHas("tc ingress: ", "tc egress: ")
}

// ofLookup reports whether they are entries of the program of sk_lookup.
func (c *Case) ofLookup() bool { return c.Firewall == nftables && c.ruleHas("sk_lookup: ") }

// listeners are the sockets on REMOTE that a divert-to rule could deliver to.
func (c *Case) listeners() []evidence.SocketEntry {
	var all []evidence.SocketEntry
	for _, s := range c.Remote.Sockets {
		if s.Proto == "tcp" && s.State == "LISTEN" || s.Proto == "udp" && !s.Remote.IsValid() && s.State != "closed" {
			all = append(all, s)
		}
	}
	return all
}

// named reports whether one of them is where the rule says.
func (c *Case) named() bool {
	return slices.ContainsFunc(c.listeners(), func(s evidence.SocketEntry) bool {
		a := s.Local.Addr()
		return s.Local.Port() == c.Divert.Port() && (a == c.Divert.Addr() || a.IsUnspecified())
	})
}

// socketsKnown reports whether REMOTE could be asked for its sockets.
func (c *Case) socketsKnown() bool { return c.known() && c.Remote.socketsKnown() }

func (h *HostFacts) socketsKnown() bool {
	return !slices.ContainsFunc(h.Missing, func(m string) bool {
		return strings.HasPrefix(m, "sockets") || strings.HasPrefix(m, "local: ") || strings.HasPrefix(m, "remote: ")
	})
}

// queues are the divert sockets and netfilter queues that the cell's rules can hand packets to.
func (c *Case) queues() []evidence.SocketEntry {
	var all []evidence.SocketEntry
	for _, s := range c.Remote.Sockets {
		if s.Proto == "divert" {
			all = append(all, s)
		}
	}
	return all
}

// queue is the divert port, or number of the queue, that the rule names, 0 when it is not known.
func (c *Case) queue() uint16 {
	for _, m := range ofQueue.FindAllStringSubmatch(c.rule(), 1) {
		n, _ := strconv.ParseUint(m[1], 10, 16)
		return uint16(n)
	}
	return 0
}

// ofQueue finds it as nftables (in the name of the chain that has the queue), iptables, pf and ipfw
// show it.
var ofQueue = regexp.MustCompile(`(?:queue-|--queue-num |divert-packet port |divert |tee )(\d+)`)

// heard reports whether someone is known to listen there, and unheard that it is known that no one
// does.
func (c *Case) heard() bool {
	return slices.ContainsFunc(c.queues(), func(s evidence.SocketEntry) bool {
		return c.queue() == 0 || s.Local.Port() == 0 || s.Local.Port() == c.queue()
	})
}
func (c *Case) unheard() bool { return c.socketsKnown() && !c.heard() }

// stuck reports whether a netfilter queue still has all packets that were ever handed to it.
func (c *Case) stuck() bool {
	return slices.ContainsFunc(c.queues(), func(s evidence.SocketEntry) bool {
		var waiting, lost, lostBySocket, last int
		n, _ := fmt.Sscanf(s.Text,
			"netfilter queue, %d waiting, dropped %d by the full queue and %d by the full socket, last id %d", &waiting, &lost, &lostBySocket, &last)
		return n == 4 && waiting > 0 && waiting == last
	})
}

// bypasses reports whether the rule is known to let packets pass when no one listens. Only nftables
// has such rules.
func (c *Case) bypasses() bool {
	return c.Firewall == nftables && c.ruleHas("-bypass")
}

// anotherMatched reports whether a rule matched that is not the first of the cell's.
func (c *Case) anotherMatched() bool {
	return len(c.Remote.Rules) > 1 && slices.ContainsFunc(c.Remote.Rules[1:], func(r evidence.FilterRule) bool {
		return r.After != nil && r.After.Matched+r.After.States > 0
	})
}

// errors are the ICMP errors that the cell's sockets got, without those of its control: that one's
// packet is not diverted, so it has to go nowhere. Where there are no ports, the client's socket
// gets the control's error too.
func (c *Case) errors() []string {
	controls := map[string]bool{}
	return slices.DeleteFunc(slices.Concat(c.Local.Errors, c.Remote.Errors), func(e string) bool {
		if strings.HasPrefix(e, "control: ") {
			return true
		}
		first := !c.Proto.HasPorts() && !controls[e]
		controls[e] = true
		return first
	})
}

// host is the one whose packets are the cell's, whichever interface they are looked for on.
func (c *Case) host() netip.Addr {
	if c.Mechanism == PacketIn || c.Mechanism == PacketOut {
		return c.LocalAddr
	}
	return c.Fake
}

// logged is what REMOTE's pf last logged of the cell's packets with the action, and the rule of the
// main ruleset that did it: "block in on vio1, rule 0 (match): @0 block drop in log quick on vio1".
func (c *Case) logged(action string) string {
	for _, p := range slices.Backward(c.Remote.Packets) {
		text := evidence.Decode(p).Pflog
		if !strings.HasPrefix(text, action+" ") {
			continue
		}
		_, number, _ := strings.Cut(text, ", rule ")
		number, _, _ = strings.Cut(number, " ")
		rules, _ := c.Remote.answer("pfctl -vv -s rules", "")
		for line := range strings.Lines(rules) {
			if strings.HasPrefix(line, "@"+number+" ") {
				return text + ": " + strings.TrimSpace(line)
			}
		}
		return text
	}
	return ""
}

// known reports whether there is evidence of REMOTE at all.
func (c *Case) known() bool {
	return len(c.Remote.Answers)+len(c.Remote.Sockets)+len(c.Remote.Rules) > 0
}

// expected says what should have happened.
func (c *Case) expected() string {
	if c.Should != "" {
		return c.Should
	}
	p := c.Proto.String()
	switch c.Mechanism {
	case DivertTo:
		return fmt.Sprintf("what {LOCAL} sends to {FAKE} by %s is diverted to a socket on REMOTE, which sees {FAKE} as its destination", p)
	case DivertReply:
		if c.comesBack() {
			return fmt.Sprintf("what LOCAL answers by %s to {FAKE} comes back to the socket on REMOTE that is bound to it", p)
		}
		return fmt.Sprintf("what REMOTE sends by %s from {FAKE} reaches {LOCAL}, and the rule counts it", p)
	case PacketIn:
		return "a datagram for REMOTE is handed to user space, which sends it on rewritten, and it arrives"
	case PacketOut:
		return "a datagram that leaves REMOTE is handed to user space, which sends it on rewritten, and it arrives"
	}
	return "what the target proves ('pfdivert list' says it) happens"
}

// adviser is the packet filter whose systems the advice is for: LOCAL's may be another than
// REMOTE's.
func (c *Case) adviser(cause *Cause) string {
	if cause.OnLocal {
		for _, a := range c.Local.Answers {
			switch {
			case strings.HasPrefix(a.Command, "ip "):
				return nftables
			case strings.HasPrefix(a.Command, "route "):
				return ""
			}
		}
	}
	switch {
	case c.ofXT():
		return xtables
	case c.ofBPF():
		return bpf
	case c.ofLookup():
		return lookup
	}
	return c.Firewall
}

// filler fills in the cell's names.
func (c *Case) filler(cause *Cause) *strings.Replacer {
	name := func(a netip.Addr, otherwise string) string {
		if a.IsValid() {
			return a.String()
		}
		return otherwise
	}
	or := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	mark := "MARK"
	if m := c.Remote.mark(); m != 0 {
		mark = fmt.Sprintf("0x%x", m)
	}
	ip := "ip"
	if c.v6() || c.Remote.family() == pfconf.Inet6 {
		ip = "ip -6"
	}
	inet := "inet"
	if c.v6() {
		inet = "inet6"
	}
	queue := "the one that the rule names"
	if n := c.queue(); n != 0 {
		queue = fmt.Sprint(n)
	}
	mtu := func(h *HostFacts, host string) string {
		n := "unknown"
		if h.mtu() != 0 {
			n = fmt.Sprint(h.mtu())
		}
		return fmt.Sprintf("%s of %s's %s", n, host, or(h.nic(), "interface"))
	}
	queues := "the queue"
	if strings.HasPrefix(c.Detail, "queue") {
		queues = c.Detail
	}
	blocking := &c.Remote
	if cause.OnLocal {
		blocking = &c.Local
	}
	divert := "the rule's address and port"
	if c.Divert.IsValid() {
		divert = c.Divert.String()
	}
	cure := "load the module, or run a kernel that has it"
	if f, ok := need.Named(c.Detail); ok {
		cure = f.Cure()
	}
	list := "nft list ruleset"
	if c.ofBPF() && !cause.OnLocal && cause.Chains == nil { // chains are nftables' own
		list = "tc filter show dev " + or(c.Remote.nic(), "NIC") + " ingress; bpftool map dump name pfdivert_rules"
	}
	if c.ofLookup() && !cause.OnLocal && cause.Chains == nil {
		list = "bpftool net show; bpftool map dump name pfdivert_rules; bpftool map dump name pfdivert_socks"
	}
	if c.ofLegacy() && !cause.OnLocal {
		list = "iptables-legacy-save; ip6tables-legacy-save"
	}
	return strings.NewReplacer(
		"nft list ruleset", list, "nft -a list ruleset", list,
		"{NEED}", cure,
		"{FAKE}", name(c.Fake, "FAKE"), "{LOCAL}", name(c.LocalAddr, "LOCAL"), "{REMOTE}", name(c.RemoteAddr, "REMOTE"),
		"{NIC}", or(c.Remote.nic(), "the interface"), "{MARK}", mark, "{TABLE}", or(c.Remote.table(), "TABLE"),
		"{DIVERT}", divert, "{DETAIL}", c.Detail, "{BLOCK}", c.logged("block"), "{QUEUES}", queues, "{ip}", ip,
		"{ROUTE}", or(c.Local.fakeRoute(c.Fake), "no route"),
		"{RULES}", or(c.others, or(c.foreign(cause), "another program's rule")), "{ERRORS}",
		strings.Join(c.errors(), "; "),
		"{inet}", inet, "{HOST}", name(c.host(), "FAKE"), "{BLOCKS}", strings.Join(blocking.blocks(c.v6()), "; "),
		"{QUEUE}", queue, "{MTUS}", "MTU "+mtu(&c.Local, "LOCAL")+", "+mtu(&c.Remote, "REMOTE"), "{LOCALNIC}",
		or(c.Local.nic(), "its interface"))
}

// foreign names the chains of someone else's that a cause is about, or all on both hosts.
func (c *Case) foreign(cause *Cause) string {
	var all []string
	switch {
	case cause.Chains != nil && cause.OnLocal:
		all = c.Local.having(cause.Chains)
	case cause.Chains != nil && c.Remote.dropper() != "":
		return c.Remote.dropper()
	case cause.Chains != nil:
		all = c.Remote.having(cause.Chains)
	default:
		for _, f := range append(c.Local.foreigns(), c.Remote.foreigns()...) {
			all = append(all, f.text)
		}
	}
	return strings.Join(all, "; ")
}
