package netlink

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Nft returns a message type of nf_tables (NFT_MSG_*).
func Nft(message uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | message }

// Netfilter appends a message of netfilter's, whose body begins with a struct nfgenmsg.
func (r *Request) Netfilter(kind, flags uint16, family uint8, resource uint16) (seq uint32) {
	return r.Add(kind, flags, family, unix.NFNETLINK_V0, byte(resource>>8), byte(resource))
}

// nfgenmsgSize is the size of a struct nfgenmsg.
const nfgenmsgSize = 4

// Netfilter returns the family of the struct nfgenmsg with which a message of netfilter's begins,
// and the attributes behind it, which are valid until the next read.
func (m Message) Netfilter() (family uint8, attributes []byte) {
	if len(m.Body) < nfgenmsgSize {
		return unix.NFPROTO_UNSPEC, nil
	}
	return m.Body[0], m.Body[nfgenmsgSize:]
}

// Transaction begins a batch of nf_tables messages that the kernel takes as a whole or not at all
// (nfnetlink_rcv_batch, net/netfilter/nfnetlink.c). It looks at all messages even when one is wrong
// and reports each error under the message's own number, so the culprits are known at once.
func (s *Socket) Transaction() *Request {
	r := s.Request()
	r.Netfilter(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	return r
}

// Commit sends the transaction and returns the rejected messages' errors by number. Each rule that
// the kernel echoes is passed to echo. The error is one that no message is to blame for; ErrLost
// leaves open what happened.
func (s *Socket) Commit(r *Request, echo func(Message)) (rejected map[uint32]unix.Errno, err error) {
	// Only the last message asks for an acknowledgement: one for each would fill the socket's
	// buffer.
	last := r.First + r.Count - 1
	r.Acknowledge()
	r.Netfilter(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)

	rejected = map[uint32]unix.Errno{}
	var whole error
	err = s.Exchange(r, func(m Message) bool {
		switch {
		case m.Kind != unix.NLMSG_ERROR:
			echo(m)
			return true
		case m.Seq == r.First:
			whole = m.Acknowledged()
			return false
		case m.Errno != 0:
			rejected[m.Seq] = m.Errno
		}
		return m.Seq != last
	})
	return rejected, errors.Join(whole, err)
}

// CommitAll is Commit for messages that belong to one thing: the first rejected one's error is
// returned.
func (s *Socket) CommitAll(r *Request) error {
	rejected, err := s.Commit(r, func(Message) {})
	if err != nil {
		return err
	}
	return r.FirstOf(rejected)
}

// FirstOf returns the error of the first rejected message, nil when there is none.
func (r *Request) FirstOf(rejected map[uint32]unix.Errno) error {
	for seq := r.First; seq != r.First+r.Count; seq++ {
		if errno := rejected[seq]; errno != 0 {
			return errno
		}
	}
	return nil
}

// The expressions of rules, as elements of NFTA_RULE_EXPRESSIONS. Those that load and compare do so
// with register 1.

// Expression appends the expression whose attributes body appends.
func (r *Request) Expression(name string, body func()) {
	e := r.Nest(unix.NFTA_LIST_ELEM)
	r.AttrString(unix.NFTA_EXPR_NAME, name)
	data := r.Nest(unix.NFTA_EXPR_DATA)
	body()
	r.Close(data)
	r.Close(e)
}

// Load appends an expression, such as meta, that loads what key names.
func (r *Request) Load(name string, keyAttr uint16, key uint32, destAttr uint16) {
	r.Expression(name, func() {
		r.Attr32(keyAttr, key)
		r.Attr32(destAttr, unix.NFT_REG_1)
	})
}

// Payload appends an expression that loads length bytes of the packet.
func (r *Request) Payload(register, base, offset, length uint32) {
	r.Expression("payload", func() {
		r.Attr32(unix.NFTA_PAYLOAD_DREG, register)
		r.Attr32(unix.NFTA_PAYLOAD_BASE, base)
		r.Attr32(unix.NFTA_PAYLOAD_OFFSET, offset)
		r.Attr32(unix.NFTA_PAYLOAD_LEN, length)
	})
}

// Mask appends an expression that keeps those bits of what was loaded that are in mask.
func (r *Request) Mask(mask []byte) {
	r.Expression("bitwise", func() {
		r.Attr32(unix.NFTA_BITWISE_SREG, unix.NFT_REG_1)
		r.Attr32(unix.NFTA_BITWISE_DREG, unix.NFT_REG_1)
		r.Attr32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		r.Value(unix.NFTA_BITWISE_MASK, mask)
		r.Value(unix.NFTA_BITWISE_XOR, make([]byte, len(mask)))
	})
}

// Compare appends an expression that compares what was loaded with data; op is NFT_CMP_*.
func (r *Request) Compare(op uint32, data []byte) {
	r.Expression("cmp", func() {
		r.Attr32(unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		r.Attr32(unix.NFTA_CMP_OP, op)
		r.Value(unix.NFTA_CMP_DATA, data)
	})
}

// Immediate appends an expression that puts data into the register.
func (r *Request) Immediate(register uint32, data []byte) {
	r.Expression("immediate", func() {
		r.Attr32(unix.NFTA_IMMEDIATE_DREG, register)
		r.Value(unix.NFTA_IMMEDIATE_DATA, data)
	})
}

// Verdict appends an expression that decides about the packet; chain is where a jump goes.
func (r *Request) Verdict(code uint32, chain string) {
	r.Expression("immediate", func() {
		r.Attr32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		data := r.Nest(unix.NFTA_IMMEDIATE_DATA)
		n := r.Nest(unix.NFTA_DATA_VERDICT)
		r.Attr32(unix.NFTA_VERDICT_CODE, code)
		if chain != "" {
			r.AttrString(unix.NFTA_VERDICT_CHAIN, chain)
		}
		r.Close(n)
		r.Close(data)
	})
}

// Value appends data as an attribute of the kind.
func (r *Request) Value(kind uint16, data []byte) {
	n := r.Nest(kind)
	r.Attr(unix.NFTA_DATA_VALUE, data)
	r.Close(n)
}

// Attributes of the tproxy expression, enum nft_tproxy_attributes in linux/netfilter/nf_tables.h.
const (
	TproxyFamily  = 1
	TproxyRegAddr = 2
	TproxyRegPort = 3
)
