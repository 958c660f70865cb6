package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/bpf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/xt"
)

// probeTable is a table that never comes to be, and noTable one that is not there.
var (
	probeTable = table{familyInet, TableName + "-probe"}
	noTable    = table{familyInet, TableName + "-none"}
)

// probeChain is a chain like c of probeTable.
func probeChain(c chain) chain {
	c.table = probeTable
	return c
}

// Probe finds out whether the kernel has the feature. It changes nothing: rules
// are tried in a transaction that also has a message which must fail.
func (f *Firewall) Probe(feature need.Name) ProbeResult {
	switch feature {
	case need.NFTables:
		return f.probe()
	case need.XTLegacy:
		return probeLegacy(xt.Rule{Matches: []xt.Extension{xt.Ports(pfconf.TCP, 0, 1)}}, pfconf.Inet)
	case need.XT, need.XTMark, need.XTTProxy, need.XTQueue, need.XTNAT, need.XTSocket:
		return f.probeXT(feature, pfconf.Inet)
	case need.BPF:
		return asAnswer(bpf.Probe())
	case need.BPFAssign:
		d, err := bpf.Open(f.config.programs())
		if err == nil {
			err = errors.Join(d.NoAssign(), d.Close())
		}
		return asAnswer(err)
	case need.BPFLookup:
		config := f.config.programs()
		config.Detached = true
		l, err := bpf.OpenLookup(config)
		if err == nil {
			err = l.Close()
		}
		return asAnswer(err)
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
	case need.Zones:
		return f.probe(ctZoneSet{1})
	case need.SocketMatch:
		return f.probe(transparentSocket{})
	case need.Redirect:
		f.rx.mu.Lock()
		defer f.rx.mu.Unlock()
		return f.rx.probeIn(rdr, []statement{redirect{1}})[0]
	case need.NAT:
		f.rx.mu.Lock()
		defer f.rx.mu.Unlock()
		return f.rx.probeIn(probeChain(rdr), []statement{dnat{netip.AddrPortFrom(netip.IPv6Loopback(), 1)}})[0]
	}
	return ProbeResult{Unknown, fmt.Errorf("no probe for %q", feature)}
}

// probeXT asks for what carries extensions of a family, or for one of them.
func (f *Firewall) probeXT(feature need.Name, family pfconf.Family) ProbeResult {
	rule := xt.Rule{Proto: pfconf.TCP.Number(family)}
	table := mangled(family)[0].hook.table
	local := netip.AddrPortFrom(family.Loopback(), 1)
	switch feature {
	case need.XT:
		rule.Matches = []xt.Extension{xt.Ports(pfconf.TCP, 0, 1)}
	case need.XTMark:
		rule.Target = f.config.xtMark(family)
	case need.XTTProxy:
		rule.Target = f.config.xtTProxy(local, Mark)
	case need.XTQueue:
		rule.Target = xt.NFQueue(1, false)
	case need.XTNAT:
		rule.Target, table = xt.DNAT(local), natted(family)[0].hook.table
	case need.XTSocket:
		rule.Matches = []xt.Extension{xt.TransparentSocket()}
	}
	if f.config.legacy() {
		return probeLegacy(rule, family)
	}
	at := chain{table: table, name: unhooked.name}
	f.rx.mu.Lock()
	defer f.rx.mu.Unlock()
	return f.rx.probeRules(kernelRule{chain: at, xt: &rule})[0]
}

// probeLegacy asks iptables-legacy for a rule's match, if it has one, and else for its target.
func probeLegacy(rule xt.Rule, family pfconf.Family) ProbeResult {
	s, err := xt.Open(family == pfconf.Inet6)
	if err != nil {
		return refusal(err)
	}
	defer s.Close()
	if rule.Matches != nil {
		err = s.HasMatch(rule.Matches[0])
	} else {
		err = s.HasTarget(rule.Target)
	}
	if errors.Is(err, unix.ENOPROTOOPT) { // no iptables-legacy
		return ProbeResult{No, err}
	}
	if err != nil {
		return refusal(err)
	}
	return ProbeResult{Support: Yes}
}

func (f *Firewall) probe(statements ...statement) ProbeResult {
	f.rx.mu.Lock()
	defer f.rx.mu.Unlock()
	return f.rx.probe(statements)[0]
}

// unhooked is a chain that no packet comes to. The kernel drops all packets that wait in the queues
// of the namespace, whoever's they are, when it takes a chain off its hook (nf_unregister_net_hook,
// net/netfilter/core.c), also one of a transaction that fails.
var unhooked = probeChain(chain{name: TableName + "-probe"})

// probe tries rules with these statements, each for itself.
func (s *socket) probe(rules ...[]statement) []ProbeResult { return s.probeIn(unhooked, rules...) }

// probeIn tries them in a chain like this one.
func (s *socket) probeIn(c chain, rules ...[]statement) []ProbeResult {
	all := make([]kernelRule, len(rules))
	for i, statements := range rules {
		all[i] = kernelRule{chain: c, statements: statements}
	}
	return s.probeRules(all...)
}

// probeRules tries rules of one chain, which is made for them.
func (s *socket) probeRules(rules ...kernelRule) []ProbeResult {
	r, c := s.transaction(), rules[0].chain
	table := r.newTable(c.table, unix.NLM_F_CREATE)
	made := r.newChain(c)
	tried := make([]uint32, len(rules))
	for i, k := range rules {
		tried[i] = r.newRule(k, 0)
	}
	failure := r.delTable(noTable, 0)
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
