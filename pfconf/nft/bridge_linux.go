package nft

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/need"
)

// ethernet matches frames of a type (linux/if_ether.h).
type ethernet struct{ kind uint16 }

func (s ethernet) String() string { return fmt.Sprintf("ether type 0x%04x", s.kind) }

func (s ethernet) encode(r *request) {
	r.Payload(unix.NFT_REG_1, unix.NFT_PAYLOAD_LL_HEADER, 12, 2)
	r.Compare(unix.NFT_CMP_EQ, binary.BigEndian.AppendUint16(nil, s.kind))
}

// QueueBridged has frames of the type that come to a bridge wait in a netfilter queue, in the
// current network namespace, which is for nothing else. Nothing takes it back.
func QueueBridged(kind, number uint16) error {
	way := queueWay()
	if err := way.err(); err != nil {
		return err
	}
	var hand statement = queue{number: number}
	if way.xt {
		hand = xtQueue{number: number}
	}
	s, err := openSocket()
	if err != nil {
		return err
	}
	s.mu.Lock()
	r := s.transaction()
	t := table{unix.NFPROTO_BRIDGE, TableName}
	c := chain{table: t, name: "bridged", hook: "prerouting"} // NF_BR_PRE_ROUTING is 0, too
	r.newTable(t, exclusive)
	r.newChain(c)
	r.newRule(kernelRule{chain: c, statements: []statement{ethernet{kind}, hand}}, 0)
	err = s.commitAll(r)
	s.mu.Unlock()
	if a := refusal(err); err != nil && a.Support == No {
		err = &need.MissingError{Feature: need.Bridge, Err: err}
	}
	if closed := s.close(); err == nil {
		err = closed
	}
	return wrap("queue what is bridged", err)
}
