package nft

import (
	"fmt"
	"slices"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/bpf"
	"pfdivert/pfconf/xt"
)

// table is one of nf_tables', or of iptables-legacy's.
type table struct {
	family uint8 // NFPROTO_*, linux/netfilter.h
	name   string
}

func (t table) String() string {
	return map[uint8]string{familyInet: "inet", familyIPv4: "ip", familyIPv6: "ip6"}[t.family] + " " + t.name
}

// Families of tables.
const (
	familyInet = 1
	familyIPv4 = 2
	familyIPv6 = 10
)

// own is this program's table.
var own = table{familyInet, TableName}

// chain is one of the table's.
type chain struct {
	table    table // own if it has no name
	name     string
	hook     string // as in "type filter hook HOOK"; "" of a chain that is only jumped to
	number   uint32 // of the hook: enum nf_inet_hooks, linux/netfilter.h
	priority int32
}

// manglePriority is NF_IP_PRI_MANGLE: after conntrack (-200), which the rules
// read, before routing looks at the mark and before the host's own filters.
const manglePriority = -150

var (
	pre = chain{own, "pre", "prerouting", 0, manglePriority}
	in  = chain{own, "in", "input", 1, manglePriority}
	out = chain{own, "out", "output", 3, manglePriority}
	// What user space reinjects goes on behind the chain that queued it.
	inDone  = chain{own, "in-done", "input", 1, manglePriority + 1}
	outDone = chain{own, "out-done", "output", 3, manglePriority + 1}
	// What a rule of x_tables did not drop comes to the chain behind its own.
	preDone = chain{own, "pre-done", "prerouting", 0, manglePriority + 1}
)

// The chains of rdr and snat have the rules that translate destinations and sources. They meet the
// first packet of a connection only. raw and rawOut come before conntrack.
var (
	rdr    = chain{own, "rdr", "prerouting", 0, dstnatPriority}
	snat   = chain{own, "snat", "postrouting", 4, srcnatPriority}
	raw    = chain{own, "raw", "prerouting", 0, rawPriority}
	rawOut = chain{own, "raw-out", "output", 3, rawPriority}
	// A packet that was marked here is routed anew.
	outRoute = chain{own, "out-route", "output", 3, manglePriority + 2}
)

// NF_IP_PRI_RAW, NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC.
const (
	rawPriority    = -300
	dstnatPriority = -100
	srcnatPriority = 100
)

// kind is the type of a chain with a hook.
func (c chain) kind() string {
	switch {
	case c.priority == dstnatPriority || c.priority == srcnatPriority:
		return "nat"
	case c == outRoute, c.table != own && c.hook == "output":
		return "route" // as iptables has it, too
	}
	return "filter"
}

// chains are those that are there from the beginning. A chain that were made later at a hook where
// packets wait in queues would have them meet their rule again: nf_reinject goes on by the number
// of their hook (net/netfilter/nfnetlink_queue.c).
var chains = []chain{raw, rawOut, pre, in, inDone, out, outDone}

// chains are those of the engine.
func (c Config) chains() []chain {
	if c.xt() {
		return append(slices.Clone(chains), preDone)
	}
	return chains
}

// queueRule is the one rule of the chain that divert-packet rules with this
// queue jump to. The chain stays when they go: to add iptables' target, the
// kernel first waits for all that was deleted before
// (nft_compat_wait_for_destructors, net/netfilter/nft_compat.c), 10 ms and
// more in which it lets no other transaction pass.
func queueRule(q queue, xt bool) kernelRule {
	name := fmt.Sprintf("queue-%d", q.number)
	if q.bypass {
		name += "-bypass"
	}
	var s statement = q
	if xt {
		s = xtQueue(q)
	}
	return kernelRule{chain: chain{table: own, name: name}, statements: []statement{s}}
}

// queueOf is the queue of a divert-packet rule.
func queueOf(r pfconf.Rule) queue { return queue{r.Divert.Port(), r.Bypass} }

// zoneRule is the one rule of the chain that rules with this conntrack zone jump to. The chain
// stays when they go: with a rule that sets a zone the kernel drops all packets that wait in the
// queues of the namespace, whoever's they are (36eae0956f65 of March 2026,
// net/netfilter/nft_ct.c).
func zoneRule(zone uint16) kernelRule {
	return kernelRule{chain: chain{table: own, name: fmt.Sprintf("zone-%d", zone)},
		statements: []statement{ctZoneSet{zone}}}
}

func (c chain) String() string {
	priority := map[int32]string{manglePriority: "mangle", rawPriority: "raw", dstnatPriority: "dstnat",
		srcnatPriority: "srcnat"}[c.priority]
	if priority == "" {
		priority = fmt.Sprintf("mangle + %d", c.priority-manglePriority)
	}
	return fmt.Sprintf("type %s hook %s priority %s; policy accept;", c.kind(), c.hook, priority)
}

// permanent is the rule that pre always begins with. Conntrack works in a
// network namespace only while some rule there uses it.
var permanent = kernelRule{chain: pre, statements: []statement{ctInvalid{}, counter{}}}

// remembers is the rule that marks the conntrack entries of what programs of BPF diverted: for
// people and for cleaning up.
var remembers = kernelRule{chain: pre, statements: []statement{marked{}, ctMark{}}}

// permanent are the rules that the table begins with.
func (c Config) permanent() []kernelRule {
	if c.bpf() {
		return []kernelRule{permanent, remembers}
	}
	return []kernelRule{permanent}
}

// kernelRule is a rule as the kernel has it. A pfconf.Rule becomes one or two;
// divert-packet needs the queue's queueRule besides.
type kernelRule struct {
	chain      chain
	label      string
	part       part
	statements []statement
	xt         *xt.Rule   // in place of statements
	bpf        *bpf.Entry // as well
}

// part says what the counters of a kernel rule mean.
type part uint8

const (
	partMain   part = iota // Matched; a second counter is Done
	partDone               // Done
	partReply              // Replies
	partKernel             // Kernel
	partBoth               // Matched and Done: the action can't fail
	partAction             // none: an earlier rule of the same packets counts
	partEnd                // none
	partOther              // none
)

var partNames = [...]string{"", " done", " replies", " kernel", "", " action", " end", " raw"}

// comment tells an administrator whose rule it is.
func (k kernelRule) comment() string { return k.label + partNames[k.part] }

func (k kernelRule) String() string {
	switch {
	case k.xt != nil:
		return k.xt.String()
	case k.bpf != nil:
		return k.bpf.String()
	}
	words := make([]string, len(k.statements))
	for i, s := range k.statements {
		words[i] = s.String()
	}
	if k.label != "" {
		words = append(words, fmt.Sprintf("comment %q", k.comment()))
	}
	return strings.Join(words, " ")
}

// compile returns the kernel's rules for r.
func (c Config) compile(r pfconf.Rule) ([]kernelRule, error) {
	if r.Tee || r.Number != 0 {
		return nil, fmt.Errorf("rule %q: a netfilter queue is given no copies, and rules have no numbers of their own", r.Label)
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	switch {
	case r.Action == pfconf.PFDivertTo || r.Action == pfconf.PFPass || r.Action == pfconf.ThroughPipe:
		return nil, fmt.Errorf("rule %q: only FreeBSD has %v", r.Label, r.Action)
	case r.OnlyOpenBSD():
		return nil, r.ForOpenBSD()
	case r.Action == pfconf.DivertReply && r.Direction != pfconf.Out:
		return nil, fmt.Errorf("rule %q: divert-reply on Linux works on what goes out", r.Label)
	case c.xt() && (r.Untracked || r.Zone != 0):
		return nil, fmt.Errorf("rule %q: it is made of nftables' statements alone", r.Label)
	case c.xt():
		return c.compileXT(r), nil
	case pfconf.BuiltBPF && c.bpf():
		return c.compileBPF(r), c.Engine.Check(r)
	case pfconf.BuiltBPF && c.lookup():
		return c.compileLookup(r), c.Engine.Check(r)
	}
	switch r.Action {
	case pfconf.DivertTo:
		return c.divertTo(r), nil
	case pfconf.DivertReply:
		return c.divertReply(r), nil
	case pfconf.RdrTo:
		s := append(c.came(), match(r)...)
		var to statement = dnat{r.Divert}
		if r.Redirects() {
			to = redirect{r.Divert.Port()}
		}
		return []kernelRule{{chain: rdr, label: r.Label, part: partBoth,
			statements: append(s, counter{}, ctMark{}, to)}}, nil
	}
	return c.divertPacket(r), nil
}

func (c Config) divertTo(r pfconf.Rule) []kernelRule {
	s := append(c.came(), match(r)...)
	var rules []kernelRule
	if r.DivertsOutput() {
		s = append([]statement{onInterface{"lo"}}, match(r)...)
		if !c.omits(OutputMark) {
			rules = append(rules, kernelRule{chain: outRoute, label: r.Label, part: partOther,
				statements: append(match(r), notProxys{}, mark{})})
		}
	}
	if r.Untracked || r.Zone != 0 {
		var set, is statement = notrack{}, ctUntracked{}
		if r.Zone != 0 {
			set, is = jump{zoneRule(r.Zone).chain.name}, ctZone{r.Zone}
		}
		if !c.omits(Raw) {
			rules = append(rules, kernelRule{chain: raw, label: r.Label, part: partOther,
				statements: append(slices.Clone(s), set)},
				kernelRule{chain: rawOut, label: r.Label, part: partOther, statements: append(answers(r), set)})
		}
		s = append(s, is)
	}
	if r.Established && !c.omits(SocketMatch) {
		rules = append(rules, kernelRule{chain: pre, label: r.Label, part: partReply,
			statements: append(slices.Clone(s), transparentSocket{}, counter{}, mark{}, accept)})
	}
	s = append(s, counter{})
	if r.Proto.HasPorts() && !c.omits(TProxy) {
		s = append(s, tproxy{r.Divert, c.omits(TProxyModule)})
	}
	if !c.omits(PacketMark) {
		s = append(s, mark{})
	}
	// The mark on the entry is for people and for the state listing: it tells
	// diverted flows from others.
	s = append(s, ctMark{}, counter{}, accept)
	rules = append(rules, kernelRule{chain: pre, label: r.Label, part: partMain, statements: s})
	if r.Family == pfconf.Inet6 && r.Proto == pfconf.ICMP && !c.omits(KernelEcho) {
		// To the kernel the diverted address is local, so it answers the echo
		// request itself; on IPv4 it finds no source address and does not.
		rules = append(rules, kernelRule{chain: out, label: r.Label, part: partKernel, statements: []statement{
			fromAddr{r.To}, toAddr{r.From}, echoReply6{}, counter{}, drop,
		}})
	}
	return rules
}

// divertReply marks the flow's conntrack entry, whichever side began: a state
// that an earlier divert-to flow left counts as well, as it does in pf.
func (c Config) divertReply(r pfconf.Rule) []kernelRule {
	s := append(match(r), counter{})
	if !c.omits(CTMark) {
		s = append(s, ctMark{})
	}
	// ct mark set does nothing and says nothing when there is no entry; asking
	// for the mark does.
	s = append(s, ctMarked{}, counter{})
	rules := []kernelRule{{chain: out, label: r.Label, part: partMain, statements: s}}
	if c.omits(Back) {
		return rules
	}
	back, to := c.came(), r.From
	if r.Translated.IsValid() {
		rules = append(rules, kernelRule{chain: snat, label: r.Label, part: partOther,
			statements: append(match(r), snatTo{r.Translated})})
		to = r.Translated
	}
	back = append(back, fromAddr{r.To}, toAddr{to})
	if r.Proto.HasPorts() {
		back = append(back, fromPort{r.Proto, r.Port})
	} else {
		back = append(back, ofProto{r.Proto.Number(r.Family)})
	}
	if c.omits(AnyDirection) {
		back = append(back, ctReply{})
	}
	if r.Translated.IsValid() {
		back = append(back, transparentSocket{}, counter{})
	} else {
		back = append(back, ctMarked{}, counter{})
	}
	if !c.omits(PacketMark) {
		back = append(back, mark{})
	}
	return append(rules, kernelRule{chain: pre, label: r.Label, part: partReply, statements: append(back, accept)})
}

func (c Config) divertPacket(r pfconf.Rule) []kernelRule {
	at, after, came := out, outDone, []statement(nil)
	if r.Direction == pfconf.In {
		at, after, came = in, inDone, c.came()
	}
	m := match(r)
	q := jump{queueRule(queueOf(r), false).chain.name}
	rules := []kernelRule{
		{chain: at, label: r.Label, part: partMain, statements: slices.Concat(came, m, []statement{counter{}, q})},
		{chain: after, label: r.Label, part: partDone, statements: slices.Concat(came, m, []statement{counter{}})},
	}
	if r.Both {
		at, came = out, nil
		if r.Direction == pfconf.Out {
			at, came = in, c.came()
		}
		rules = append(rules, kernelRule{chain: at, label: r.Label, part: partReply,
			statements: slices.Concat(came, answers(r), []statement{counter{}, q})})
	}
	return rules
}

// came matches the interface towards LOCAL, when one is configured.
func (c Config) came() []statement {
	if c.omits(Towards) {
		return []statement{onInterface{"elsewhere0"}}
	}
	if c.Interface == "" {
		return nil
	}
	return []statement{onInterface{c.Interface}}
}

// match matches the rule's addresses, protocol and port.
func match(r pfconf.Rule) []statement {
	if r.Proto.HasPorts() {
		return []statement{fromAddr{r.From}, toAddr{r.To}, toPort{r.Proto, r.Port}}
	}
	return []statement{fromAddr{r.From}, toAddr{r.To}, ofProto{r.Proto.Number(r.Family)}}
}

// answers matches what answers the packets that match matches.
func answers(r pfconf.Rule) []statement {
	s := []statement{fromAddr{r.To}, toAddr{r.From}}
	if r.Proto.HasPorts() {
		return append(s, fromPort{r.Proto, r.Port})
	}
	return append(s, ofProto{r.Proto.Number(r.Family)})
}
