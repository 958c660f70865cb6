package nft

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/netlink"
)

// way is which way this kernel has to a netfilter queue: its own expression
// (CONFIG_NFT_QUEUE) or iptables' target.
type way struct {
	xt     bool
	answer ProbeResult
}

// err is nil when there is a way.
func (w way) err() error {
	switch w.answer.Support {
	case Yes:
		return nil
	case No:
		return &need.MissingError{Feature: need.NFQueue, Err: w.answer.Err}
	}
	return fmt.Errorf("find out whether there is NFQUEUE: %w", w.answer.Err)
}

// WarmUp begins, in the background, to ask the kernel what Open does not need
// and the first divert-packet rule waits for. It is for a process that is going
// to Open soon; a process asks once. It changes nothing.
func WarmUp() { go queueWay() }

// queueWay finds out and waits for it. The kernel waits for a grace period of RCU
// when it takes the probe's transaction back (__nf_tables_abort in
// net/netfilter/nf_tables_api.c), 10 ms and more, and lets no other transaction of the
// namespace pass. So the question is asked in a namespace that is for nothing else.
var queueWay = sync.OnceValue(func() way {
	found := make(chan way, 1)
	go OnOwnThread(func() { askElsewhere(found) })
	return <-found
})

// OnOwnThread runs fn on a thread that ends with it.
func OnOwnThread(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if unix.Gettid() != os.Getpid() {
			fn()
			return
		}
		// What the first thread is in, the process is taken to be in. While it waits here
		// another one is used.
		OnOwnThread(fn)
		runtime.UnlockOSThread()
	}()
	<-done
}

// askElsewhere asks in a new namespace, which the thread stays in; where this process may
// make none, in the one that it is in.
func askElsewhere(found chan<- way) {
	_ = unix.Unshare(unix.CLONE_NEWNET)
	s, err := openSocket()
	if err != nil {
		found <- way{answer: ProbeResult{Err: err}}
		return
	}
	s.mu.Lock()
	// iptables' target wants to know its hook.
	answers := s.probeIn(probeChain(pre), []statement{queue{number: 1}}, []statement{xtQueue{number: 1}})
	s.mu.Unlock()
	w := way{answer: answers[0]}
	if w.answer.Support == No {
		w = way{xt: true, answer: answers[1]}
	}
	if w.answer.Support == Yes {
		w.answer = s.probeQueues()
	}
	found <- w
	_ = s.close() // only now: it waits for the kernel as well
}

// probeQueues asks whether there is what hands the packets of queues to programs: a rule can name a
// queue without it. What it asks for does nothing since Linux 3.8 (nfqnl_recv_config,
// net/netfilter/nfnetlink_queue.c).
func (s *socket) probeQueues() ProbeResult {
	const config, cmd, pfBind = unix.NFNL_SUBSYS_QUEUE<<8 | 2, 1, 3 // linux/netfilter/nfnetlink_queue.h
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.request()
	r.Netfilter(config, unix.NLM_F_ACK, unix.AF_UNSPEC, 0)
	r.Attr(cmd, []byte{pfBind, 0, 0, unix.AF_INET})
	var refused error
	err := s.Exchange(r.Request, func(m netlink.Message) bool {
		if m.Errno != 0 {
			refused = m.Errno
		}
		return false
	})
	switch {
	case err != nil:
		return ProbeResult{Unknown, err}
	case refused == unix.EINVAL: // nfnetlink_rcv_msg: no such subsystem
		return ProbeResult{No, refused}
	case refused != nil:
		return ProbeResult{Unknown, refused}
	}
	return ProbeResult{Support: Yes}
}

// maxQueues is from how many chains on those that no rule jumps to are dropped. The numbers
// are drawn from a few, so this bounds what someone who draws from all 65536 would leave.
const maxQueues = 1024

// needQueue makes the queue's chain when it is not there. When an earlier
// transaction made it but its answers were lost, it gets a second rule like the first,
// which no packet reaches.
func (p *plan) needQueue(c *change, q queue) {
	if p.queues[q] {
		return
	}
	if len(p.queues) >= maxQueues {
		p.dropQueues(c)
	}
	p.keepChain(c, queueRule(q, queueWay().xt))
	p.queues[q] = true
}

// keepChain makes a chain with its one rule, which stays when the rules go that jump to it.
func (p *plan) keepChain(c *change, k kernelRule) {
	for _, seq := range []uint32{p.request.newChain(k.chain), p.request.newRule(k, 0)} {
		p.owner[seq], p.chains[seq] = c, k.chain
	}
}

// dropQueues deletes the chains that no rule jumps to.
func (p *plan) dropQueues(c *change) {
	used := map[queue]bool{}
	for _, l := range p.rules {
		if l.rule.Action == pfconf.DivertPacket {
			used[queueOf(l.rule)] = true
		}
	}
	for q := range p.queues {
		if !used[q] {
			ch := queueRule(q, false).chain
			seq := p.request.delChain(ch, 0)
			p.owner[seq], p.chains[seq] = c, ch
			delete(p.queues, q)
		}
	}
}
