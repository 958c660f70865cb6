package matrix

import (
	"slices"

	"pfdivert/pfconf"
)

// What IPv4 does, IPv6 does, and what one engine of Linux's packet filter does, the others do:
// where results differ, one of the two is wrong, unless the kernel's source has a reason.

// knownDifference is one between the families.
type knownDifference struct {
	firewall string
	of       func(Kernel, Target) bool // the target of inet
	inet     Verdict
	reason   string
	why      string
}

var knownDifferences = []knownDifference{
	{
		firewall: "nftables", inet: Skip, reason: NoFeature,
		of: func(k Kernel, t Target) bool { return !k.bindsRaw(pfconf.Inet, t.Proto) },
		why: "raw_bind (net/ipv4/raw.c) binds foreign addresses since Linux 5.17, rawv6_bind (net/ipv6/raw.c) does " +
			"so in all",
	},
	{
		firewall: "ipfw", inet: Skip, reason: NoFeature,
		of: func(_ Kernel, t Target) bool { return t.Kind() == "args-icmp-to" },
		why: "icmp_input (netinet/ip_icmp.c) answers a diverted echo request before raw sockets are looked for; " +
			"icmp6_input (netinet6/icmp6.c) gives it to them",
	},
}

// FamiliesDiffer compares the results of one target in both families on a kernel. ok is true if
// they agree, or if it is known why they do not: then why is what the kernel's source says. What
// was not tested, or is a known failure with a reason of its own, agrees with all.
func FamiliesDiffer(k Kernel, inet, inet6 Result) (why string, ok bool) {
	if agree(inet, inet6) {
		return "", true
	}
	for _, t := range append(Targets(), Claims()...) {
		if t.Name != inet.Name {
			continue
		}
		i := slices.IndexFunc(knownDifferences, func(d knownDifference) bool {
			return d.firewall == k.Firewall && d.inet == inet.Verdict && d.reason == inet.Reason && d.of(k, t)
		})
		if i >= 0 {
			return knownDifferences[i].why, true
		}
	}
	return "", false
}

// EnginesDiffer compares the results of one target with two engines on a kernel, as FamiliesDiffer
// does. That the kernel was asked for an extension and proved to lack it is known, and that a rule
// is made of statements that the engine has not.
func EnginesDiffer(a, b Result) (why string, ok bool) {
	if agree(a, b) {
		return "", true
	}
	for _, r := range []Result{a, b} {
		if r.Verdict == Skip && (r.Reason == NoFeature || r.Reason == NotClaimed) {
			return r.Detail, true
		}
	}
	return "", false
}

func agree(a, b Result) bool {
	for _, r := range []Result{a, b} {
		if r.Verdict == "" || r.Verdict == XFail || r.Reason == NoFamily {
			return true
		}
	}
	return a.Verdict == b.Verdict && a.Reason == b.Reason
}
