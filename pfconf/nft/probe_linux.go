package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/need"
)

// probeTable is the name of a table that never comes to be.
const probeTable = TableName + "-probe"

// Probe finds out whether the kernel has the feature. It changes nothing: rules
// are tried in a transaction that also has a message which must fail.
func (f *Firewall) Probe(feature need.Name) ProbeResult {
	switch feature {
	case need.NFTables:
		return f.probe()
	case need.TProxy:
		return f.probe(tproxy{netip.AddrPortFrom(netip.IPv6Loopback(), 1), f.config.omits(TProxyModule)})
	case need.NFQueue:
		return queueWay().answer
	case need.Conntrack:
		return f.probe(ctMarked{})
	case need.CTNetlink:
		return f.probeConntrack()
	case need.IPv6:
		return probeIPv6()
	case need.NAT:
		f.rx.mu.Lock()
		defer f.rx.mu.Unlock()
		return f.rx.probeIn(rdr, []statement{dnat{netip.AddrPortFrom(netip.IPv6Loopback(), 1)}})[0]
	}
	return ProbeResult{Unknown, fmt.Errorf("no probe for %q", feature)}
}

func (f *Firewall) probe(statements ...statement) ProbeResult {
	f.rx.mu.Lock()
	defer f.rx.mu.Unlock()
	return f.rx.probe(statements)[0]
}

// unhooked is a chain that no packet comes to. The kernel drops all packets that wait in the queues
// of the namespace, whoever's they are, when it takes a chain off its hook (nf_unregister_net_hook,
// net/netfilter/core.c), also one of a transaction that fails.
var unhooked = chain{name: "probe"}

// probe tries rules with these statements, each for itself.
func (s *socket) probe(rules ...[]statement) []ProbeResult { return s.probeIn(unhooked, rules...) }

// probeIn tries them in a chain like this one.
func (s *socket) probeIn(c chain, rules ...[]statement) []ProbeResult {
	r := s.transaction()
	table := r.newTable(probeTable, unix.NLM_F_CREATE)
	made := r.newChain(probeTable, c)
	tried := make([]uint32, len(rules))
	for i, statements := range rules {
		tried[i] = r.newRule(probeTable, kernelRule{chain: c, statements: statements}, 0)
	}
	failure := r.delTable(probeTable + "-none")
	rejected, err := s.commit(r, noEcho)
	answers := make([]ProbeResult, len(rules))
	for i, rule := range tried {
		switch {
		case err != nil:
			answers[i] = refusal(err)
		case rejected[table] != 0:
			answers[i] = refusal(rejected[table])
		case rejected[made] != 0:
			answers[i] = refusal(rejected[made])
		case rejected[rule] != 0:
			answers[i] = refusal(rejected[rule])
		case rejected[failure] == 0:
			answers[i].Err = errors.New("the kernel took a transaction that it should have refused")
		default:
			answers[i].Support = Yes
		}
	}
	return answers
}

// lacking are the errors by which the kernel says that it has no such thing:
// no module for the expression or target, no subsystem, no family.
var lacking = []unix.Errno{unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT}

func refusal(err error) ProbeResult {
	var errno unix.Errno
	if errors.As(err, &errno) && slices.Contains(lacking, errno) {
		return ProbeResult{No, err}
	}
	return ProbeResult{Unknown, err}
}

func probeIPv6() ProbeResult {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return refusal(err)
	}
	_ = unix.Close(fd)
	return ProbeResult{Support: Yes}
}
