package nft

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// A transaction is a batch of nf_tables messages that the kernel takes as a
// whole or not at all (nfnetlink_rcv_batch, net/netfilter/nfnetlink.c). It
// looks at all messages even when one is wrong and reports each error under the
// message's own number, so the culprits are known at once.

func (s *socket) transaction() *request {
	r := s.request()
	r.add(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	r.finish()
	return r
}

// nft begins a message of the transaction.
func (r *request) nft(kind, flags uint16) (seq uint32) {
	return r.add(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, unix.NFPROTO_INET, 0)
}

// commit sends the transaction and gives the rejected messages' errors by
// number, and each rule that the kernel echoes to echo. The error is one that
// no message is to blame for. errLost leaves open what happened.
func (s *socket) commit(r *request, echo func(message)) (map[uint32]unix.Errno, error) {
	// Only the last message asks for an acknowledgement: one for each would
	// fill the socket's buffer.
	last := r.first + r.count - 1
	flags := r.b[r.start+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	r.add(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	r.finish()

	rejected := map[uint32]unix.Errno{}
	var whole error
	err := s.exchange(r, func(m message) bool {
		switch {
		case m.kind != unix.NLMSG_ERROR:
			echo(m)
			return true
		case m.seq == r.first:
			whole = m.errno
			return false
		case m.errno != 0:
			rejected[m.seq] = m.errno
		}
		return m.seq != last
	})
	return rejected, errors.Join(whole, err)
}

func noEcho(message) {}

// commitAll is commit for messages that belong to one thing.
func (s *socket) commitAll(r *request) error {
	rejected, err := s.commit(r, noEcho)
	if err != nil {
		return err
	}
	return firstOf(r, rejected)
}

// firstOf is the error of the first rejected message, nil when there is none.
func firstOf(r *request, rejected map[uint32]unix.Errno) error {
	for seq := r.first; seq != r.first+r.count; seq++ {
		if errno := rejected[seq]; errno != 0 {
			return errno
		}
	}
	return nil
}

// exclusive creates and fails with EEXIST when it is there.
const exclusive = unix.NLM_F_CREATE | unix.NLM_F_EXCL

func (r *request) newTable(name string, flags uint16) uint32 {
	seq := r.nft(unix.NFT_MSG_NEWTABLE, flags)
	r.attrString(unix.NFTA_TABLE_NAME, name)
	r.finish()
	return seq
}

func (r *request) delTable(name string) uint32 {
	seq := r.nft(unix.NFT_MSG_DELTABLE, 0)
	r.attrString(unix.NFTA_TABLE_NAME, name)
	r.finish()
	return seq
}

// newChain creates the chain; one that is there stays as it is.
func (r *request) newChain(table string, c chain) uint32 {
	seq := r.nft(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE)
	r.attrString(unix.NFTA_CHAIN_TABLE, table)
	r.attrString(unix.NFTA_CHAIN_NAME, c.name)
	if c.hook != "" {
		hook := r.nest(unix.NFTA_CHAIN_HOOK)
		r.attr32(unix.NFTA_HOOK_HOOKNUM, c.number)
		r.attr32(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
		r.close(hook)
		r.attr32(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
		r.attrString(unix.NFTA_CHAIN_TYPE, c.kind())
	}
	r.finish()
	return seq
}

// delChain deletes the chain with its rules (nf_tables_delchain,
// net/netfilter/nf_tables_api.c), unless a rule jumps to it.
func (r *request) delChain(table string, c chain) uint32 {
	seq := r.nft(unix.NFT_MSG_DELCHAIN, 0)
	r.attrString(unix.NFTA_CHAIN_TABLE, table)
	r.attrString(unix.NFTA_CHAIN_NAME, c.name)
	r.finish()
	return seq
}

// newRule appends the rule to its chain; with NLM_F_ECHO in flags the kernel
// tells its handle.
func (r *request) newRule(table string, k kernelRule, flags uint16) uint32 {
	seq := r.nft(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND|flags)
	r.attrString(unix.NFTA_RULE_TABLE, table)
	r.attrString(unix.NFTA_RULE_CHAIN, k.chain.name)
	list := r.nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, s := range k.statements {
		s.encode(r)
	}
	r.close(list)
	if k.label != "" {
		r.attrComment(k.comment())
	}
	r.finish()
	return seq
}

func (r *request) delRule(h placed) uint32 {
	seq := r.nft(unix.NFT_MSG_DELRULE, 0)
	r.rule(h)
	return seq
}
