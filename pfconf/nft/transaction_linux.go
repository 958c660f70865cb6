package nft

import (
	"golang.org/x/sys/unix"

	"pfdivert/pfconf/netlink"
)

func (s *socket) transaction() *request { return &request{s.Transaction()} }

func (s *socket) commit(r *request, echo func(netlink.Message)) (map[uint32]unix.Errno, error) {
	return s.Commit(r.Request, echo)
}

func noEcho(netlink.Message) {}

// commitAll is commit for messages that belong to one thing.
func (s *socket) commitAll(r *request) error { return s.CommitAll(r.Request) }

// exclusive creates and fails with EEXIST when it is there.
const exclusive = unix.NLM_F_CREATE | unix.NLM_F_EXCL

func (r *request) newTable(t table, flags uint16) uint32 {
	seq := r.nft(t.family, unix.NFT_MSG_NEWTABLE, flags)
	r.AttrString(unix.NFTA_TABLE_NAME, t.name)
	return seq
}

func (r *request) delTable(t table, flags uint16) uint32 {
	seq := r.nft(t.family, unix.NFT_MSG_DELTABLE, flags)
	r.AttrString(unix.NFTA_TABLE_NAME, t.name)
	return seq
}

// newChain creates the chain; one that is there stays as it is.
func (r *request) newChain(c chain) uint32 {
	seq := r.nft(c.table.family, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE)
	r.AttrString(unix.NFTA_CHAIN_TABLE, c.table.name)
	r.AttrString(unix.NFTA_CHAIN_NAME, c.name)
	if c.hook != "" {
		hook := r.Nest(unix.NFTA_CHAIN_HOOK)
		r.Attr32(unix.NFTA_HOOK_HOOKNUM, c.number)
		r.Attr32(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
		r.Close(hook)
		r.Attr32(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
		r.AttrString(unix.NFTA_CHAIN_TYPE, c.kind())
	}
	return seq
}

// delChain deletes the chain with its rules (nf_tables_delchain,
// net/netfilter/nf_tables_api.c), unless a rule jumps to it; with NLM_F_NONREC one without rules.
func (r *request) delChain(c chain, flags uint16) uint32 {
	seq := r.nft(c.table.family, unix.NFT_MSG_DELCHAIN, flags)
	r.AttrString(unix.NFTA_CHAIN_TABLE, c.table.name)
	r.AttrString(unix.NFTA_CHAIN_NAME, c.name)
	return seq
}

// newRule appends the rule to its chain; with NLM_F_ECHO in flags the kernel
// tells its handle.
func (r *request) newRule(k kernelRule, flags uint16) uint32 {
	seq := r.nft(k.chain.table.family, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND|flags)
	r.AttrString(unix.NFTA_RULE_TABLE, k.chain.table.name)
	r.AttrString(unix.NFTA_RULE_CHAIN, k.chain.name)
	list := r.Nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, s := range k.statements {
		s.encode(r)
	}
	if k.xt != nil {
		r.xtExpressions(*k.xt)
	}
	r.Close(list)
	if k.xt != nil && k.xt.Proto != 0 {
		compat := r.Nest(unix.NFTA_RULE_COMPAT)
		r.Attr32(unix.NFTA_RULE_COMPAT_PROTO, uint32(k.xt.Proto))
		r.Attr32(unix.NFTA_RULE_COMPAT_FLAGS, 0)
		r.Close(compat)
	}
	if k.label != "" {
		r.attrComment(k.comment())
	}
	return seq
}

func (r *request) delRule(h placed) uint32 {
	seq := r.nft(h.chain.table.family, unix.NFT_MSG_DELRULE, 0)
	r.rule(h)
	return seq
}
