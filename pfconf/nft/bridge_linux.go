package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

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
	return ofBridge("queue what is bridged", chain{name: "bridged", hook: "prerouting"}, ethernet{kind}, hand)
}

// toHardware puts a destination into the frame, and ours has the kernel take it for one of this
// host's.
type (
	toHardware struct{ net.HardwareAddr }
	ours       struct{}
)

func (s toHardware) String() string { return fmt.Sprintf("ether daddr set %v", s.HardwareAddr) }
func (ours) String() string         { return "meta pkttype set host" }

func (s toHardware) encode(r *request) {
	r.Immediate(unix.NFT_REG_1, s.HardwareAddr)
	r.Expression("payload", func() {
		r.Attr32(unix.NFTA_PAYLOAD_SREG, unix.NFT_REG_1)
		r.Attr32(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_LL_HEADER)
		r.Attr32(unix.NFTA_PAYLOAD_OFFSET, 0)
		r.Attr32(unix.NFTA_PAYLOAD_LEN, uint32(len(s.HardwareAddr)))
		r.Attr32(unix.NFTA_PAYLOAD_CSUM_TYPE, 0)
	})
}

func (ours) encode(r *request) {
	r.Immediate(unix.NFT_REG_1, []byte{unix.PACKET_HOST})
	r.Expression("meta", func() {
		r.Attr32(unix.NFTA_META_KEY, unix.NFT_META_PKTTYPE)
		r.Attr32(unix.NFTA_META_SREG, unix.NFT_REG_1)
	})
}

// TakeUp has a bridge hand to its host what comes by one of its ports for an address, as nft(8)
// says that a bridge becomes a router for it: the frame is for the bridge's own hardware address
// then. It is in the current network namespace, which is for nothing else. Nothing takes it back.
func TakeUp(port string, to netip.Addr, bridge net.HardwareAddr) error {
	kind := uint16(unix.ETH_P_IPV6)
	if to.Is4() {
		kind = unix.ETH_P_IP
	}
	return ofBridge("take frames up from a bridge", chain{name: "taken-up", hook: "prerouting", priority: dstnatBridge},
		onInterface{port}, ethernet{kind}, toAddr{to}, toHardware{bridge}, ours{})
}

// dstnatBridge is NF_BR_PRI_NAT_DST_BRIDGED: before br_netfilter.
const dstnatBridge = -300

// ofBridge makes a table of the bridge's with one rule in one chain, in the current network
// namespace.
func ofBridge(doing string, c chain, statements ...statement) error {
	s, err := openSocket()
	if err != nil {
		return err
	}
	s.mu.Lock()
	r := s.transaction()
	c.table = table{unix.NFPROTO_BRIDGE, TableName}
	r.newTable(c.table, exclusive)
	r.newChain(c)
	r.newRule(kernelRule{chain: c, statements: statements}, 0)
	err = s.commitAll(r)
	s.mu.Unlock()
	if a := refusal(err); err != nil && a.Support == No {
		err = &need.MissingError{Feature: need.Bridge, Err: err}
	}
	if closed := s.close(); err == nil {
		err = closed
	}
	return wrap(doing, err)
}
