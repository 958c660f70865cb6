package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// udataComment is the type of a rule's comment in its user data, a list of type
// byte, length byte, text with a zero (libnftnl/udata.h).
const udataComment = 0

func (r *request) attrComment(s string) {
	n := r.open(unix.NFTA_RULE_USERDATA)
	r.b = append(r.b, udataComment, byte(len(s)+1))
	r.b = append(append(r.b, s...), 0)
	r.close(n)
}

// commentOf is the comment of a rule that attrComment wrote.
func commentOf(m message) string {
	b := attribute(m.data, unix.NFTA_RULE_USERDATA)
	if len(b) < 3 || b[0] != udataComment || int(b[1]) != len(b)-2 {
		return ""
	}
	return string(b[2 : len(b)-1])
}

// rule names the rule that the message is about.
func (r *request) rule(h placed) {
	r.attrString(unix.NFTA_RULE_TABLE, TableName)
	r.attrString(unix.NFTA_RULE_CHAIN, h.chain)
	r.attr64(unix.NFTA_RULE_HANDLE, h.handle)
	r.finish()
}

// placed is where a kernel rule is and what its counters mean.
type placed struct {
	chain  string
	part   part
	handle uint64
}

const newRuleMessage = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE

func handleOf(m message) (uint64, error) {
	b := attribute(m.data, unix.NFTA_RULE_HANDLE)
	if len(b) != 8 {
		return 0, fmt.Errorf("nf_tables: a rule came without its handle")
	}
	return binary.BigEndian.Uint64(b), nil
}

// dumpRules returns each rule of the table to take.
func (s *socket) dumpRules(take func(message)) error {
	for {
		r := s.request()
		r.nft(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
		r.attrString(unix.NFTA_RULE_TABLE, TableName)
		r.finish()
		var refused error
		interrupted := false
		err := s.exchange(r, func(m message) bool {
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.kind == unix.NLMSG_DONE:
				return false
			case m.kind == unix.NLMSG_ERROR:
				refused = m.errno
				return false
			case m.kind == newRuleMessage:
				take(m)
			}
			return true
		})
		if err = errors.Join(err, refused); err != nil {
			return fmt.Errorf("list the rules of table inet %s: %w", TableName, err)
		}
		// The rules changed meanwhile: what was listed may have gaps.
		if !interrupted {
			return nil
		}
	}
}

// atOnce bounds the things that are asked for in one datagram: each answer
// takes 4 KB of the socket's buffer, which is at least 208 KB.
const atOnce = 32

// getRules returns those of the rules that are there to take. That costs twice
// as much per rule as dumpRules.
func (s *socket) getRules(rules []placed, take func(message)) error {
	for some := range slices.Chunk(rules, atOnce) {
		r := s.request()
		for _, h := range some {
			r.nft(unix.NFT_MSG_GETRULE, 0)
			r.rule(h)
		}
		answers := 0
		var refused error
		err := s.exchange(r, func(m message) bool {
			switch {
			case m.kind == newRuleMessage:
				take(m)
			case m.kind == unix.NLMSG_ERROR && m.errno != unix.ENOENT:
				refused = m.errno
			}
			answers++
			return answers < len(some)
		})
		if err = errors.Join(err, refused); err != nil {
			return fmt.Errorf("read rules of table inet %s: %w", TableName, err)
		}
	}
	return nil
}
