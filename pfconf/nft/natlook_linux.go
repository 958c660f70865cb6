package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
)

// Bits of an entry's status, linux/netfilter/nf_conntrack_common.h.
const (
	statusSourceNAT      = 1 << 4
	statusDestinationNAT = 1 << 5
)

// Natlook asks conntrack for the other side of a translated connection of this network
// namespace. It takes CAP_NET_ADMIN. That there is none is pfconf.ErrNoState.
//
// What one side sees is the other way round in the tuple of the answers, whichever end was
// translated: after dnat they come from the new destination, after snat they go to the new source.
func Natlook(q pfconf.NATQuery) (answer pfconf.NATAnswer, err error) {
	if err := q.Validate(); err != nil {
		return answer, err
	}
	if q.Domain != 0 {
		return answer, errors.New("there are no routing domains on Linux")
	}
	s, err := openSocket()
	if err != nil {
		return answer, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	s.mu.Lock()
	defer s.mu.Unlock()

	family := pfconf.FamilyOf(q.Src.Addr())
	back := tuple{family: family, number: uint8(q.Proto.Number(family)), src: q.Dst, dst: q.Src}
	var e entry
	var refused error = unix.ENOENT
	err = s.each(ctGet, 0, []tuple{back}, nil, func(_ int, m netlink.Message) {
		if m.Kind == unix.NLMSG_ERROR {
			refused = m.Errno
			return
		}
		e, refused = parseEntry(m.Netfilter())
		// An entry is found by the tuple of either direction.
		answers := parseTuple(netlink.Attribute(attributesOf(m), ctaTupleReply))
		if refused == nil && (answers.src != back.src || answers.dst != back.dst || !e.seenFrom(q.Direction)) {
			refused = unix.ENOENT
		}
	})
	switch {
	case err != nil:
	case refused == unix.ENOENT:
		return answer, fmt.Errorf("%w: %v", pfconf.ErrNoState, q)
	default:
		err = noConntrack(refused)
	}
	if err != nil {
		return answer, fmt.Errorf("look the conntrack entry up: %w", err)
	}
	return pfconf.NATAnswer{Src: e.orig.src, Dst: e.orig.dst}, nil
}

// seenFrom reports whether a question with the direction is about such an entry. One whose
// addresses are as they were answers both, as a state of pf that passes a host does.
func (e entry) seenFrom(d pfconf.Direction) bool {
	switch {
	case d == pfconf.Out:
		return e.status&statusSourceNAT == 0 || e.status&statusDestinationNAT != 0
	case d == pfconf.In:
		return e.status&statusDestinationNAT == 0 || e.status&statusSourceNAT != 0
	}
	return true
}
