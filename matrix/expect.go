package matrix

import (
	"pfdivert/pfconf"
)

// Kernel is what this program expects of a kind of kernel under test, where
// kernels differ. docs/states.md explains each line.
type Kernel struct {
	Firewall string
	// RawOnFake: a diverted raw or ICMP packet reaches a socket that is bound to
	// FAKE, not one on the loopback address. Linux: raw sockets are matched by the
	// packet's destination, which policy routing does not change (net/ipv4/raw.c).
	RawOnFake bool
	// RepliesNeedRule: without a divert-reply rule the replies do not reach the socket.
	// pf links a state with the socket that sent the packet and delivers TCP, UDP
	// and raw replies by that alone; ICMP's it does not.
	RepliesNeedRule bool
	// TiesStates: the state of a divert-reply rule goes with its socket.
	TiesStates bool
	// CountsPackets: a rule counts exactly the packets that it matched. pf
	// counts a rule's states' packets of both directions, and ICMP errors that
	// belong to them.
	CountsPackets bool
	// CountsDiverted: a divert-packet rule counts packets. pf's count only states.
	CountsDiverted bool
}

// kernels are the kernels by their firewall.
var kernels = map[string]Kernel{
	"nftables": {RawOnFake: true, RepliesNeedRule: true, CountsPackets: true, CountsDiverted: true},
	"pf":       {TiesStates: true},
}

// KernelOf gives the expectations of a kernel whose firewall has this name, and
// false for one that is not known.
func KernelOf(firewall string) (Kernel, bool) {
	k, ok := kernels[firewall]
	k.Firewall = firewall
	return k, ok
}

// controlReplies tells whether a control of a divert-reply rule means
// something for the protocol.
func (k Kernel) controlReplies(p pfconf.Proto) bool {
	return k.RepliesNeedRule || p == pfconf.ICMP
}
