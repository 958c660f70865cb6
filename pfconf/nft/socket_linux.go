package nft

import (
	"sync"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/netlink"
)

// socket is a NETLINK_NETFILTER socket. It stays open from Open to Close: closing one after a
// transaction that deleted something takes some 11 ms.
type socket struct {
	mu sync.Mutex // held from a request to its last answer
	*netlink.Socket
}

func openSocket() (*socket, error) {
	s, err := netlink.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	return &socket{Socket: s}, nil
}

func (s *socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Close()
}

// request is one of netfilter's.
type request struct{ *netlink.Request }

func (s *socket) request() *request { return &request{s.Request()} }

// nft begins a message about nf_tables of the family.
func (r *request) nft(family uint8, message, flags uint16) (seq uint32) {
	return r.Netfilter(netlink.Nft(message), flags, family, 0)
}

// attributesOf returns the attributes of an answer; they are valid until the next read.
func attributesOf(m netlink.Message) []byte {
	_, b := m.Netfilter()
	return b
}
