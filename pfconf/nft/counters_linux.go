package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
)

// question is what one caller of Counters wants to know.
type question struct {
	ctx    context.Context
	labels []string
	answer map[string]pfconf.Counters
	err    error
}

// Counters reads the rules' counters; see pfconf.Firewall. Questions asked at
// the same time are read together.
func (f *Firewall) Counters(ctx context.Context, labels []string) (map[string]pfconf.Counters, error) {
	q := &question{ctx: ctx, labels: labels}
	f.reads.ask(q)
	if q.err != nil {
		return nil, fmt.Errorf("read the counters of table inet %s: %w", TableName, q.err)
	}
	return q.answer, nil
}

// atOnce bounds the rules that are asked for in one datagram: each answer takes
// 4 KB of the socket's buffer, which is at least 208 KB.
const atOnce = 32

// answer reads the counters for all questions.
func (f *Firewall) answer(questions []*question) {
	f.mu.RLock()
	rules := f.rules
	f.mu.RUnlock()
	read := map[string]pfconf.Counters{}
	for _, q := range questions {
		switch {
		case q.ctx.Err() != nil:
			q.err = q.ctx.Err()
		case f.closed.Load():
			q.err = ErrClosed
		}
		for _, label := range q.labels {
			if rules[label] == nil && q.err == nil {
				q.err = fmt.Errorf("no rule %q is loaded", label)
			}
		}
		if q.err == nil {
			for _, label := range q.labels {
				read[label] = pfconf.Counters{}
			}
		}
	}
	failed := map[string]error{}
	f.rx.mu.Lock()
	for labels := range slices.Chunk(slices.Collect(maps.Keys(read)), atOnce/2) {
		f.readCounters(labels, rules, read, failed)
	}
	f.rx.mu.Unlock()
	for _, q := range questions {
		if q.err != nil {
			continue
		}
		q.answer = make(map[string]pfconf.Counters, len(q.labels))
		for _, label := range q.labels {
			q.answer[label] = read[label]
			q.err = errors.Join(q.err, failed[label])
		}
	}
}

// readCounters asks for each kernel rule of the labels by its handle: that
// costs less than a listing when few are wanted and not much more when all.
func (f *Firewall) readCounters(labels []string, rules map[string]*loaded, read map[string]pfconf.Counters, failed map[string]error) {
	type asked struct {
		label string
		part  part
	}
	var of []asked
	r := f.rx.request()
	for _, label := range labels {
		for _, p := range rules[label].parts {
			r.nft(unix.NFT_MSG_GETRULE, 0)
			r.rule(p)
			of = append(of, asked{label, p.part})
		}
	}
	answers := 0
	err := f.rx.exchange(r, func(m message) bool {
		a := of[m.seq-r.first]
		if m.kind == unix.NLMSG_ERROR {
			failed[a.label] = fmt.Errorf("rule %q: %w", a.label, m.errno)
		} else {
			read[a.label] = a.part.count(read[a.label], m.data)
		}
		answers++
		return answers < len(of)
	})
	if err != nil {
		for _, label := range labels {
			failed[label] = err
		}
	}
}

// count adds the counters of a kernel rule to those of its label.
func (p part) count(c pfconf.Counters, rule []byte) pfconf.Counters {
	var packets [2]uint64
	n := 0
	for _, e := range attributes(attribute(rule, unix.NFTA_RULE_EXPRESSIONS)) {
		if string(attribute(e, unix.NFTA_EXPR_NAME)) != "counter\x00" || n == len(packets) {
			continue
		}
		if b := attribute(attribute(e, unix.NFTA_EXPR_DATA), unix.NFTA_COUNTER_PACKETS); len(b) == 8 {
			packets[n] = binary.BigEndian.Uint64(b)
			n++
		}
	}
	switch p {
	case partMain:
		c.Matched = packets[0]
		if n == 2 {
			c.Done = packets[1]
		}
	case partDone:
		c.Done = packets[0]
	case partReply:
		c.Replies = packets[0]
	case partKernel:
		c.Kernel = packets[0]
	}
	return c
}
