package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// probeTable is the name of a table that never comes to be.
const probeTable = TableName + "-probe"

// Probe finds out whether the kernel has the feature. It changes nothing: rules
// are tried in a transaction that also has a message which must fail.
func (f *Firewall) Probe(feature Feature) Answer {
	var statements []statement
	switch feature {
	case NFTables:
	case TransparentProxy:
		statements = []statement{tproxy{netip.AddrPortFrom(netip.IPv6Loopback(), 1)}}
	case NFQueue:
		if a := f.probe(queue{1}); a.Outcome != No {
			return a
		}
		statements = []statement{xtQueue{1}}
	case Conntrack:
		return f.probeConntrack()
	case IPv6:
		return probeIPv6()
	default:
		return Answer{Unknown, fmt.Errorf("no probe for %q", feature)}
	}
	return f.probe(statements...)
}

func (f *Firewall) probe(statements ...statement) Answer {
	f.rx.mu.Lock()
	defer f.rx.mu.Unlock()
	return f.rx.probe(statements)
}

// probe tries a rule with the statements.
func (s *socket) probe(statements []statement) Answer {
	r := s.transaction()
	table := r.newTable(probeTable, unix.NLM_F_CREATE)
	r.newChain(probeTable, pre)
	rule := r.newRule(probeTable, kernelRule{chain: pre, statements: statements}, 0)
	failure := r.delTable(probeTable + "-none")
	rejected, err := s.commit(r, noEcho)
	switch {
	case err != nil:
		return refusal(err)
	case rejected[table] != 0:
		return refusal(rejected[table])
	case rejected[rule] != 0:
		return refusal(rejected[rule])
	case rejected[failure] == 0:
		return Answer{Unknown, errors.New("the kernel took a transaction that it should have refused")}
	}
	return Answer{Outcome: Yes}
}

// lacking are the errors by which the kernel says that it has no such thing:
// no module for the expression or target, no subsystem, no family.
var lacking = []unix.Errno{unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT}

func refusal(err error) Answer {
	var errno unix.Errno
	if errors.As(err, &errno) && slices.Contains(lacking, errno) {
		return Answer{No, err}
	}
	return Answer{Unknown, err}
}

func probeIPv6() Answer {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return refusal(err)
	}
	_ = unix.Close(fd)
	return Answer{Outcome: Yes}
}
