package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/netlink"
)

// udataComment is the type of a rule's comment in its user data, a list of type
// byte, length byte, text with a zero (libnftnl/udata.h).
const udataComment = 0

func (r *request) attrComment(s string) {
	b := append([]byte{udataComment, byte(len(s) + 1)}, s...)
	r.Attr(unix.NFTA_RULE_USERDATA, append(b, 0))
}

// commentOf is the comment of a rule that attrComment wrote.
func commentOf(m netlink.Message) string {
	b := netlink.Attribute(attributesOf(m), unix.NFTA_RULE_USERDATA)
	if len(b) < 3 || b[0] != udataComment || int(b[1]) != len(b)-2 {
		return ""
	}
	return string(b[2 : len(b)-1])
}

// rule names the rule that the message is about.
func (r *request) rule(h placed) {
	r.AttrString(unix.NFTA_RULE_TABLE, h.chain.table.name)
	r.AttrString(unix.NFTA_RULE_CHAIN, h.chain.name)
	r.Attr64(unix.NFTA_RULE_HANDLE, h.handle)
}

// placed is where a kernel rule is and what its counters mean.
type placed struct {
	chain  chain
	part   part
	handle uint64 // 0 in a table of iptables-legacy
}

// ruleKey names a rule in the kernel.
type ruleKey struct {
	table  table
	handle uint64
}

func (h placed) key() ruleKey { return ruleKey{h.chain.table, h.handle} }

// keyOf names the rule that a message is about.
func keyOf(m netlink.Message) (k ruleKey, err error) {
	family, b := m.Netfilter()
	k.table = table{family, strings.TrimRight(string(netlink.Attribute(b, unix.NFTA_RULE_TABLE)), "\x00")}
	k.handle, err = handleOf(m)
	return k, err
}

const newRuleMessage = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE

func handleOf(m netlink.Message) (uint64, error) {
	b := netlink.Attribute(attributesOf(m), unix.NFTA_RULE_HANDLE)
	if len(b) != 8 {
		return 0, fmt.Errorf("nf_tables: a rule came without its handle")
	}
	return binary.BigEndian.Uint64(b), nil
}

// dumpRules passes each rule of own to take, or of all tables, and all again when they changed
// meanwhile.
func (s *socket) dumpRules(all bool, take func(netlink.Message)) error {
	for {
		r := s.request()
		if all {
			r.nft(unix.NFPROTO_UNSPEC, unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
		} else {
			r.nft(own.family, unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
			r.AttrString(unix.NFTA_RULE_TABLE, own.name)
		}
		err := s.Dump(r.Request, func(m netlink.Message) error {
			if m.Kind == newRuleMessage {
				take(m)
			}
			return nil
		})
		if err == nil || !errors.Is(err, netlink.ErrInterrupted) {
			return wrap("list the rules", err)
		}
	}
}

// atOnce bounds the things that are asked for in one datagram: each answer
// takes 4 KB of the socket's buffer, which is at least 208 KB.
const atOnce = 32

// getRules returns those of the rules that are there to take. That costs twice
// as much per rule as dumpRules.
func (s *socket) getRules(rules []placed, take func(netlink.Message)) error {
	for some := range slices.Chunk(rules, atOnce) {
		r := s.request()
		for _, h := range some {
			r.nft(h.chain.table.family, unix.NFT_MSG_GETRULE, 0)
			r.rule(h)
		}
		answers := 0
		var refused error
		err := s.Exchange(r.Request, func(m netlink.Message) bool {
			switch {
			case m.Kind == newRuleMessage:
				take(m)
			case m.Kind == unix.NLMSG_ERROR && m.Errno != unix.ENOENT:
				refused = m.Errno
			}
			answers++
			return answers < len(some)
		})
		if err = errors.Join(err, refused); err != nil {
			return fmt.Errorf("read rules: %w", err)
		}
	}
	return nil
}
