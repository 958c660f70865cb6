package matrix

import (
	"fmt"
	"slices"
	"strings"

	"pfdivert/matrix/explain"
	"pfdivert/pfconf"
)

// Kernel is what this program expects of a kind of kernel under test, where
// kernels differ. docs/states.md explains each line.
type Kernel struct {
	Firewall string
	// Engine is how the firewall is given its rules, "" where there is one way.
	Engine pfconf.Engine
	// RawOnFake: a diverted raw or ICMP packet reaches a socket that is bound to
	// FAKE, not one on the loopback address. Linux: raw sockets are matched by the
	// packet's destination, which policy routing does not change (net/ipv4/raw.c). FreeBSD: nor
	// does ipfw's fwd (netinet/raw_ip.c, netinet6/raw_ip6.c).
	RawOnFake bool
	// RepliesNeedRule: without a divert-reply rule the replies do not reach the socket.
	// pf links a state with the socket that sent the packet and delivers TCP, UDP
	// and raw replies by that alone; ICMP's it does not.
	RepliesNeedRule bool
	// TiesStates: the state of a divert-reply rule goes with its socket.
	TiesStates bool
	// StatesFirst: a packet that belongs to a state does not meet the rules. A rule
	// counts the states that it creates, and their packets of both directions with the ICMP
	// errors that belong to them; one of divert-packet counts its states alone. Where it is
	// false, a rule counts exactly the packets that it matches.
	StatesFirst bool
	// Stateless: the rules keep no states, so there is none to ask for (ipfw's static rules).
	Stateless bool
	// MeetsReplies: a divert-reply rule is about the packets that come back, and counts those
	// alone.
	MeetsReplies bool
	// FirstOnly: a rule is asked about packets that no connected socket has, so it counts of a TCP
	// connection what opens it alone.
	FirstOnly bool
	// MatchesOnly: what a rule counts says nothing about what its action did.
	MatchesOnly bool
	// MeetsFragments: a rule about packets that come in meets their fragments one by one, before
	// they are put together.
	MeetsFragments bool
	// AnswersEcho: the kernel answers a diverted IPv4 echo request itself, and no raw socket sees
	// it. FreeBSD: icmp_input (netinet/ip_icmp.c) makes the request a reply and sends it, before
	// raw sockets are looked for, whatever the destination.
	AnswersEcho bool
	// RedirectsBeside: a rule that redirects is one of the pf that stands beside the filter, whose
	// states have the packets.
	RedirectsBeside bool
	// SharesPorts: sockets that have one name share it by SO_REUSEPORT, and not by SO_REUSEADDR.
	SharesPorts bool
	// SweepsFake: when the run is over the filter removes all states between LOCAL and
	// FAKE. Before, only what is in a cell's way is removed: each removal takes a pfctl.
	SweepsFake bool
	// Release is the first number of the kernel's release, 0 when it is not known, and Minor the
	// second.
	Release, Minor int
	// OtherDomain: REMOTE works in another of OpenBSD's routing domains than 0.
	OtherDomain bool
	// PFOn: pf is switched on beside the filter (FreeBSD).
	PFOn bool
}

// kernels are the kernels by their firewall.
var kernels = map[string]Kernel{
	"ipfw": {RawOnFake: true, RepliesNeedRule: true, Stateless: true, MeetsReplies: true, MatchesOnly: true,
		MeetsFragments: true, SharesPorts: true,
		AnswersEcho: true, RedirectsBeside: true},
	"nftables": {RawOnFake: true, RepliesNeedRule: true},
	"pf":       {TiesStates: true, StatesFirst: true, SharesPorts: true, SweepsFake: true},
}

// KernelOf returns the expectations of a kernel whose firewall has this name, and
// false for one that is not known.
func KernelOf(firewall string) (Kernel, bool) {
	k, ok := kernels[firewall]
	k.Firewall = firewall
	return k, ok
}

// counts is how many of the packets that a client sends the rule counts.
func (k Kernel) counts(p pfconf.Proto, sent uint64) uint64 {
	if k.FirstOnly && p == pfconf.TCP {
		return min(sent, 1)
	}
	return sent
}

// bindsRaw reports whether the kernel is one that binds raw sockets to foreign addresses. IPv4's of
// Linux do so since 5.17 ("ipv4/raw: support binding to nonlocal addresses"); distributions have
// it earlier, so only a socket that is refused tells.
func (k Kernel) bindsRaw(f pfconf.Family, p pfconf.Proto) bool {
	old := k.Firewall == "nftables" && k.Release > 0 && (k.Release < 5 || k.Release == 5 && k.Minor < 17)
	return !old || f != pfconf.Inet || p.HasPorts()
}

// sharing is the option by which sockets share a name.
func (k Kernel) sharing() string {
	if k.SharesPorts {
		return "SO_REUSEPORT"
	}
	return "SO_REUSEADDR"
}

// dropsTimeWait reports whether a socket in TIME_WAIT can be dropped. Linux does so since 6.0
// (tcp_abort, net/ipv4/tcp.c).
func (k Kernel) dropsTimeWait() bool {
	return k.Firewall != "nftables" || k.Release == 0 || k.Release >= 6
}

// besides reports whether the target's rule is one of the pf that stands beside the kernel's
// filter.
func (k Kernel) besides(t Target) bool {
	return k.RedirectsBeside && (t.Claim != nil && t.Claim.PF || t.First.translates())
}

// controlReplies reports whether a control of a divert-reply rule means
// something for the protocol.
func (k Kernel) controlReplies(p pfconf.Proto) bool {
	return k.RepliesNeedRule || p == pfconf.ICMP
}

// stateStays reports whether the state of a cell is still there when its sockets
// are closed and, for tcp, TIME_WAIT has been dropped. pf ties states to
// connected sockets; the server of udp-to and rip-to never is, and an ICMP
// state lives until its timeout. conntrack ties states to no socket.
func (k Kernel) stateStays(p pfconf.Proto, m Mode) bool {
	return !k.TiesStates || p == pfconf.ICMP || m.IsDivertTo() && p != pfconf.TCP
}

// release is the first two numbers of a kernel's release.
type release [2]int

// before reports whether it is earlier than another. A release that is not known is before all.
func (r release) before(other release) bool { return slices.Compare(r[:], other[:]) < 0 }

// release is the kernel's.
func (k Kernel) release() release { return release{k.Release, k.Minor} }

// known is a failure that a kind of kernel is known for.
type known struct {
	firewall string
	domain   bool    // only in another routing domain than 0
	before   release // only in releases before this one; none for all
	from     release // only in this release and later ones; none for all
	pfOn     bool    // only where pf is switched on beside the filter
	// without is an engine whose rules do not fail so.
	without pfconf.Engine
	what    string // the targets, in words
	of      func(Target) bool
	reason  string // of the failure; any other is a new one
	// cause is that of the failure, whatever its reason; any other is a new one. With it a target
	// may pass as well: more than the kernel decides whether it fails.
	cause string
	why   string
}

var knownFailures = []known{
	{
		firewall: "nftables", before: release{7}, what: "The first packets of a UDP flow that came joined, `queue-gro-udp`,",
		of:    func(t Target) bool { return t.Kind() == "queue-gro-udp" },
		cause: "joined-dropped",
		why: "the pieces of one packet are taken for packets that share an unconfirmed conntrack entry (CVE-2026-45859; seen on " +
			"Debian's 6.1.176; fixed by 207b3ebacb61 of November 2025, in 6.12.75 and other stable releases)",
	},
	{
		firewall: "nftables", before: release{6, 15},
		what:  "What answers a connection over IPv6 whose source was translated, `inet6-to-socket-snat`,",
		of:    func(t Target) bool { return t.Kind() == "to-socket-snat" && t.Family == pfconf.Inet6 },
		cause: "answer-lost",
		why: "nf_sk_lookup_slow_v6() looks for the translated names (CVE-2025-22021; seen on Debian's 5.10.223; fixed by " +
			"932b32ffd760 of March 2025, in 6.15 and in stable releases)",
	},
	{
		firewall: "nftables", without: pfconf.BPFLookup,
		what:   "What is bridged, where br_netfilter has the rules of IP see it, `to-bridge-netfilter`,",
		of:     func(t Target) bool { return t.Kind() == "to-bridge-netfilter" },
		reason: NotDelivered,
		why: "tproxy chooses the socket while the packet is still the bridge's, ip_rcv_core() takes it away (skb_orphan, " +
			"net/ipv4/ip_input.c), and ip_sabotage_in() keeps the rules from a second look (net/bridge/br_netfilter_hooks.c; " +
			"https://github.com/openwrt/packages/issues/18850)",
	},
	{
		firewall: "pf", what: "DIOCNATLOOK, `natlook-tcp` and `natlook-udp`,",
		of:     func(t Target) bool { return t.Claim != nil && t.Claim.About == "natlook" },
		reason: StateMissing,
		why: "states are found by a hash of their addresses and ports first (pf_state_compare_key, sys/net/pf.c), " +
			"and DIOCNATLOOK does not compute it (sys/net/pf_ioctl.c 1.418, OpenBSD 7.7)",
	},
	{
		firewall: "pf", what: "What a rule translates to the other family and diverts, `divert-pf-af-to`,",
		of:     func(t Target) bool { return t.Kind() == "divert-pf-af-to" },
		reason: NotDelivered,
		why: "pf_test() hands what it has translated to the other family's stack (PF_AFRT), and diverts only what passes " +
			"in its own (PF_PASS; sys/net/pf.c 7919 of OpenBSD 7.7-current)",
	},
	{
		firewall: "pf", what: "What pf routes and diverts, `divert-pf-route-to` and `divert-pf-reply-to`,",
		of:     func(t Target) bool { return t.Kind() == "divert-pf-route-to" || t.Kind() == "divert-pf-reply-to" },
		reason: WrongWay,
		why: "pf_test() hands a packet whose state's rule diverts to the divert socket in place of routing it (PF_DIVERT), and lets " +
			"what is written back pass without looking for its state (sys/net/pf.c 7919 and 7585 of OpenBSD 7.7-current)",
	},
	{
		firewall: "pf", what: "What pf makes copies of and diverts, `divert-pf-dup-to`,",
		of:     func(t Target) bool { return t.Kind() == "divert-pf-dup-to" },
		reason: NotDuplicated,
		why: "pf_test() hands a packet whose state's rule diverts to the divert socket in place of copying it (PF_DIVERT), and lets " +
			"what is written back pass without looking for its state (sys/net/pf.c 7919 and 7585 of OpenBSD 7.7-current)",
	},
	{
		firewall: "pf", what: "What is reinjected when it came in and is forwarded, `divert-pf-forwarded-once`,",
		of:     func(t Target) bool { return t.Kind() == "divert-pf-forwarded-once" },
		reason: NotCounted,
		why: "pf_test() takes the mark of what is written back away when it comes in (PF_TAG_DIVERTED_PACKET), so the packet meets " +
			"the rules when it leaves, without its tags (sys/net/pf.c 7585 of OpenBSD 7.7-current)",
	},
	{
		// OpenBSD's own suite has the target disabled: "does not remove the state".
		firewall: "pf", what: "`reuse-rip-to-reply-to`",
		of:     func(t Target) bool { return t.Kind() == "reuse-rip-to-reply-to" },
		reason: NoReply,
		why:    "pf keeps the state of rip-to, and it catches the reply (regress/sys/net/pf_divert/Makefile disables this target)",
	},
	{
		firewall: "pf", domain: true, what: "What comes in again, `args-udp-packet-in` and claims,",
		of:     Target.comesInAgain,
		reason: NotReinjected,
		why:    "divert_output() gives a packet that comes in again no routing domain, and its destination is looked up in domain 0 (sys/netinet/ip_divert.c)",
	},
	{
		firewall: "pf", domain: true,
		what: "A TCP connection whose packets are diverted, `divert-tcp-in`, `divert-tcp-out`, `divert-pf-rdr-in-tcp` and `divert-pf-forwarded-*`,",
		of: func(t Target) bool {
			return strings.HasPrefix(t.Kind(), "divert-tcp-") || t.Kind() == "divert-pf-rdr-in-tcp" ||
				strings.HasPrefix(t.Kind(), "divert-pf-forwarded-")
		},
		reason: NotDelivered,
		why:    "one way of it comes in again, and its packets are lost as those of args-udp-packet-in are",
	},
	{
		firewall: "pf", domain: true,
		what:   "What answers a translated flow that is diverted, `divert-pf-nat-out` and `divert-pf-match-nat-out`,",
		of:     func(t Target) bool { return t.Kind() == "divert-pf-nat-out" || t.Kind() == "divert-pf-match-nat-out" },
		reason: NoReply,
		why:    "the answers come in again, and are lost as the packets of args-udp-packet-in are",
	},
	{
		firewall: "ipfw", what: "What comes in again and is shorter than its header says, `divert-bad-length-in`,",
		of:     func(t Target) bool { return t.Kind() == "divert-bad-length-in" },
		reason: NotRefused,
		why: "div_output() looks at the length of what leaves alone (sys/netinet/ip_divert.c, lines 383 and 395 of 12.1); ip_input() and " +
			"ip6_input() drop the packet later, and the writer does not hear of it",
	},
	{
		firewall: "ipfw", before: release{14}, what: "On FreeBSD before 14, what pf itself diverts, `inet-divert-pf-packet-in` and `-out`,",
		of:     func(t Target) bool { return t.Claim != nil && t.Claim.PF && t.Family == pfconf.Inet },
		reason: Looped,
		why:    "pf does not know a packet that its divert-to has handed out and diverts it again (seen on 12.1; fixed in 14)",
	},
	{
		firewall: "ipfw", before: release{15, 1}, what: "On FreeBSD before 15.1, what pf itself diverts of IPv6, `inet6-divert-pf-*`,",
		of:     func(t Target) bool { return t.Claim != nil && t.Claim.PF && t.Family == pfconf.Inet6 },
		reason: NotRewritten,
		why:    "pf lets the packet pass and says on the console that divert is not supported for IPv6 (seen on 12.1 and 15.0)",
	},
	{
		firewall: "ipfw", from: release{15}, what: "What pf redirects and diverts with keep state, `divert-pf-rdr-in-*`,",
		of:     func(t Target) bool { return strings.HasPrefix(t.Kind(), "divert-pf-rdr-in-") },
		reason: NotReinjected,
		why: "pf makes the state a second time for the packet that is written back, and drops it because the state is there " +
			"(PFRES_STATEINS, sys/netpfil/pf/pf.c 6312 of 15.1; https://github.com/opnsense/src/issues/302 and 303)",
	},
	{
		firewall: "ipfw", from: release{15}, what: "What pf tags or routes and diverts with keep state, `divert-pf-tag-in` and `divert-pf-route-to`,",
		of:     func(t Target) bool { return t.Kind() == "divert-pf-tag-in" || t.Kind() == "divert-pf-route-to" },
		reason: WrongWay,
		why: "of a packet that is written back the state is found and not used, so it leaves untagged and by the routing table " +
			"(sys/netpfil/pf/pf.c 1986 of 15.1; https://github.com/opnsense/src/issues/308)",
	},
	{
		firewall: "ipfw", from: release{15}, what: "What pf answers by a gateway and diverts with keep state, `divert-pf-reply-to`,",
		of:     func(t Target) bool { return t.Kind() == "divert-pf-reply-to" },
		reason: WrongWay,
		why: "the answer is diverted too, and of what is written back the state is found and not used, so it leaves by the routing table " +
			"(sys/netpfil/pf/pf.c 1986 of 15.1)",
	},
	{
		firewall: "ipfw", from: release{15}, what: "What pf makes copies of and diverts with keep state, `divert-pf-dup-to`,",
		of:     func(t Target) bool { return t.Kind() == "divert-pf-dup-to" },
		reason: NotDuplicated,
		why: "pf diverts a packet before it makes the copy, and of what is written back the state is found and not used " +
			"(sys/netpfil/pf/pf.c 11240 and 1986 of 15.1)",
	},
	{
		firewall: "ipfw", from: release{15}, what: "What pf sends through a pipe and diverts with keep state, `divert-pf-pipe-in`,",
		of:     func(t Target) bool { return t.Kind() == "divert-pf-pipe-in" },
		reason: NotLost,
		why: "pf diverts a packet before it sends it through the pipe, and of what is written back the state is found and not used " +
			"(sys/netpfil/pf/pf.c 11240 and 1986 of 15.1)",
	},
	{
		firewall: "ipfw", from: release{15}, what: "What pf translates the source of and diverts, `divert-pf-nat-out`,",
		of:     func(t Target) bool { return t.Kind() == "divert-pf-nat-out" },
		reason: WrongAddress,
		why: "the packet that is written back has its translated source, by which pf_find_state() finds no state of what leaves, so it " +
			"meets the rule again and is translated a second time (sys/netpfil/pf/pf.c; seen on 15.0)",
	},
	{
		firewall: "ipfw", from: release{14}, pfOn: true,
		what:  "On FreeBSD 14 and later, with pf on beside ipfw, what ipfw diverts in one direction",
		of:    func(t Target) bool { return t.diverts() && !(t.Claim != nil && t.Claim.PF) },
		cause: "pf-spoils-divert",
		why: "pf_test() deletes the tag by which ipfw knows where to go on with a packet (FreeBSD's fabf705f4b5a; " +
			"sys/netpfil/pf/pf.c 11013 of 15.1); in which direction depends on which of the two was switched on last",
	},
	{
		firewall: "ipfw", from: release{14}, pfOn: true,
		what:   "On FreeBSD 14 and later, with pf on beside ipfw, `divert-turned-out`",
		of:     func(t Target) bool { return t.Kind() == "divert-turned-out" },
		reason: NotReinjected,
		why:    "what was to leave and is written to come in is lost (seen on 15.0 and 15.1; where the kernel drops it is not known)",
	},
	{
		firewall: "ipfw", from: release{14}, pfOn: true,
		what:   "On FreeBSD 14 and later, with pf on beside ipfw, `inet6-divert-tee-fragments`",
		of:     func(t Target) bool { return t.Kind() == "divert-tee-fragments" && t.Family == pfconf.Inet6 },
		reason: WrongData,
		why:    "pf puts fragments of IPv6 together before ipfw sees them (seen on 15.1)",
	},
	{
		firewall: "ipfw", from: release{14}, pfOn: true,
		what:  "On FreeBSD 14 and later, with a pf on beside ipfw that reassembles, `inet-divert-tee-fragments`",
		of:    func(t Target) bool { return t.Kind() == "divert-tee-fragments" && t.Family == pfconf.Inet },
		cause: "pf-reassembles",
		why:   "pf's ruleset has it put fragments together, which it does before ipfw sees them (seen on 15.1)",
	},
	{
		firewall: "ipfw", what: "A header longer than its packet, `inet-divert-header-beyond-out`,",
		of:     func(t Target) bool { return t.Kind() == "divert-header-beyond-out" && t.Family == pfconf.Inet },
		reason: RefusedOtherwise,
		why:    "ipfw drops the packet and the writer gets EACCES (seen on 15.0 and 15.1); div_send() does not look (sys/netinet/ip_divert.c)",
	},
	{
		firewall: "ipfw", from: release{15}, what: "A packet of another IP version, `divert-bad-header-in` and `-out`,",
		of:     func(t Target) bool { return strings.HasPrefix(t.Kind(), "divert-bad-header-") },
		reason: RefusedOtherwise,
		why:    "div_send() refuses it with EAFNOSUPPORT, and divert(4) says EINVAL (sys/netinet/ip_divert.c 399 of 15.1)",
	},
}

// ofKernel reports whether the kernel is known for the failure.
func (f known) ofKernel(k Kernel) bool {
	old := f.before == release{} || k.Release > 0 && k.release().before(f.before)
	return f.firewall == k.Firewall && (!f.domain || k.OtherDomain) && (!f.pfOn || k.PFOn) && old &&
		(f.without == "" || k.Engine != f.without) &&
		!k.release().before(f.from)
}

// knownCause returns the cause by which the kernel is known for a failure of the target, "" when
// there is none.
func (k Kernel) knownCause(t Target) string {
	i := slices.IndexFunc(knownFailures, func(f known) bool { return f.cause != "" && f.ofKernel(k) && f.of(t) })
	if i < 0 {
		return ""
	}
	return knownFailures[i].cause
}

// releaseOf returns the first two numbers of a kernel's release, of "FreeBSD 12.1-STABLE" 12 and 1,
// and 0 for those that are not there.
func releaseOf(kernel string) (release, minor int) {
	_, text, _ := strings.Cut(kernel, " ")
	_, _ = fmt.Sscanf(text, "%d.%d", &release, &minor) // what is not there stays 0
	return release, minor
}

// diverts reports whether the target's packets go to a divert socket.
func (t Target) diverts() bool {
	return t.First == PacketIn || t.First == PacketOut || t.Claim != nil && t.First != Redirect
}

// comesInAgain reports whether packets that the packet role reinjects are to come in on REMOTE.
func (t Target) comesInAgain() bool {
	turned := strings.HasPrefix(t.Kind(), "divert-turned-")
	redirected := t.First == Redirect && t.Claim.PF && t.Proto == pfconf.UDP
	return redirected || t.First.mechanism == explain.PacketIn && !turned ||
		t.First.mechanism == explain.PacketOut && turned
}

// expected turns a verdict into what it means for a kernel with known failures. cause is that of
// the failure, "" when it is not known.
func (k Kernel) expected(t Target, r Result, cause string) Result {
	for _, f := range knownFailures {
		if !f.ofKernel(k) || !f.of(t) {
			continue
		}
		switch {
		case r.Verdict == Fail && (f.cause == "" && r.Reason == f.reason || f.cause != "" && cause == f.cause):
			r.Verdict = XFail
			r.Detail = strings.TrimSuffix(r.Detail, ".") + "; known: " + f.why
		case r.Verdict == Pass && f.cause == "":
			r.Verdict, r.Reason, r.Detail = XPass, KnownFailurePassed, "passed, and was known to fail: "+f.why
		}
	}
	return r
}
