package nft

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
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
	err := f.readCounters(rules, read)
	for _, q := range questions {
		if q.err == nil {
			q.err = err
		}
		if q.err != nil {
			continue
		}
		q.answer = make(map[string]pfconf.Counters, len(q.labels))
		for _, label := range q.labels {
			q.answer[label] = read[label]
		}
	}
}

// readCounters fills in the counters of the labels in read.
func (f *Firewall) readCounters(rules map[string]*loaded, read map[string]pfconf.Counters) error {
	type asked struct {
		label string
		part  part
	}
	wanted, elsewhere := map[ruleKey]asked{}, false
	var places []placed
	for label := range read {
		for _, p := range rules[label].parts {
			wanted[p.key()] = asked{label, p.part}
			places = append(places, p)
			elsewhere = elsewhere || p.chain.table != own
		}
	}
	take := func(m netlink.Message) {
		k, err := keyOf(m)
		if a, ok := wanted[k]; ok && err == nil {
			read[a.label] = a.part.count(read[a.label], attributesOf(m))
			delete(wanted, k)
		}
	}
	f.rx.mu.Lock()
	defer f.rx.mu.Unlock()
	var err error
	if 2*len(read) > len(rules) {
		err = f.rx.dumpRules(elsewhere, take)
	} else {
		err = f.rx.getRules(places, take)
	}
	if err == nil && f.beside != nil {
		err = f.beside.count(rules, read)
	}
	if err != nil {
		return err
	}
	for _, a := range wanted {
		return goneError(a.label)
	}
	return nil
}

// goneError is the error of a rule that the kernel has no longer.
func goneError(label string) error {
	return fmt.Errorf("rule %q is not in the kernel any more: another process has removed it", label)
}

// count adds the counters of a kernel rule to those of its label.
func (p part) count(c pfconf.Counters, rule []byte) pfconf.Counters {
	var packets [2]uint64
	n := 0
	for _, e := range netlink.Attributes(netlink.Attribute(rule, unix.NFTA_RULE_EXPRESSIONS)) {
		if string(netlink.Attribute(e, unix.NFTA_EXPR_NAME)) != "counter\x00" || n == len(packets) {
			continue
		}
		if b := netlink.Attribute(netlink.Attribute(e, unix.NFTA_EXPR_DATA), unix.NFTA_COUNTER_PACKETS); len(b) == 8 {
			packets[n] = binary.BigEndian.Uint64(b)
			n++
		}
	}
	return p.add(c, packets[0], packets[1])
}

// add adds what the counters of a kernel rule say: packets, and of a second one done.
func (p part) add(c pfconf.Counters, packets, done uint64) pfconf.Counters {
	switch p {
	case partMain:
		c.Matched += packets
		c.Done += done
	case partBoth:
		c.Matched, c.Done = c.Matched+packets, c.Done+packets
	case partDone:
		c.Done += packets
	case partReply:
		c.Replies += packets
	case partKernel:
		c.Kernel += packets
	}
	return c
}
