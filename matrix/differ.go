package matrix

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"
)

// sentences say of each field of Kernel what is asserted otherwise where it is true; docs/states.md
// says why.
var sentences = map[string]string{
	"RawOnFake":       "A diverted raw or ICMP packet reaches a socket that is bound to FAKE, not one on the loopback address.",
	"RepliesNeedRule": "Without a divert-reply rule no reply reaches the socket: a control shows it. Where this is not said, the state that the packet made is enough for TCP, UDP and raw IP.",
	"TiesStates":      "The state of a divert-reply rule goes with its socket: it must be there before the close and gone after.",
	"StatesFirst":     "A packet that belongs to a state does not meet the rules: a rule must have made exactly its states, which have the packets of both directions.",
	"Stateless":       "The rules keep no states, so none are looked for.",
	"MeetsReplies":    "A divert-reply rule is about the packets that come back, and counts those alone.",
	"FirstOnly":       "A rule counts what no connected socket has: of a TCP connection the packet that opens it.",
	"MatchesOnly":     "A rule counts what it matched, not what its action did.",
	"MeetsFragments":  "A rule about packets that come in meets their fragments one by one, and counts each.",
	"AnswersEcho":     "The kernel answers a diverted IPv4 echo request itself; the target that would see it proves that and is SKIP.",
	"RedirectsBeside": "A connection is redirected by the pf that stands beside the filter: its rule must have made one state.",
	"SharesPorts":     "Sockets share one name by SO_REUSEPORT, not by SO_REUSEADDR.",
	"SweepsFake":      "The states between LOCAL and FAKE are removed at the end of a run, not with each cell, unless they are in its way.",
	"PFOn":            "pf is switched on beside the filter.",
	"OtherDomain":     "REMOTE works in another routing domain than 0.",
}

// Differences says in sentences what is expected of the kernel that is not expected of every
// one, and then for which failures it is known.
func (k Kernel) Differences() []string {
	var all []string
	v := reflect.ValueOf(k)
	for _, f := range reflect.VisibleFields(v.Type()) {
		if f.Type.Kind() == reflect.Bool && v.FieldByIndex(f.Index).Bool() {
			all = append(all, sentences[f.Name])
		}
	}
	for _, f := range knownFailures {
		if f.ofKernel(k) {
			reason := cmp.Or(f.reason, f.cause)
			all = append(all, fmt.Sprintf("%s is known to fail (`%s`): %s.", f.what, reason,
				strings.TrimSuffix(f.why, ".")))
		}
	}
	return all
}

// KernelOn returns the expectations of the kernel under test of a system (GOOS/GOARCH) with a
// kernel of this name and release, and false for one that is not known.
func KernelOn(system, kernel string) (Kernel, bool) {
	goos, _, _ := strings.Cut(system, "/")
	k, ok := KernelOf(map[string]string{"linux": "nftables", "openbsd": "pf", "freebsd": "ipfw"}[goos])
	k.Release, k.Minor = releaseOf(kernel)
	return k, ok
}
