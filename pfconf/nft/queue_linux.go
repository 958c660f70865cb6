package nft

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// queueWay is which way this kernel has to a netfilter queue: its own
// expression (CONFIG_NFT_QUEUE) or iptables' target.
type queueWay struct {
	known chan struct{} // closed when xt or err is
	xt    bool
	err   error
}

// findQueueWay begins to find out. The kernel waits for a grace period of RCU
// when it takes the probe's transaction back (__nf_tables_abort in
// net/netfilter/nf_tables_api.c), 10 ms and more, and lets no other transaction of the
// namespace pass. So the question is asked in a namespace that is for nothing else.
func (f *Firewall) findQueueWay() *queueWay {
	w := &queueWay{known: make(chan struct{})}
	go func() {
		// For good: the thread, which is in another namespace, ends with the
		// goroutine. The first thread must not: what it is in, the process is taken to be in.
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			other := make(chan struct{})
			go func() {
				runtime.LockOSThread()
				f.askElsewhere(w)
				close(other)
			}()
			<-other
			runtime.UnlockOSThread()
			return
		}
		f.askElsewhere(w)
	}()
	return w
}

// askElsewhere asks in a new namespace; where this process may make none, in
// the one that it is in.
func (f *Firewall) askElsewhere(w *queueWay) {
	s := f.rx
	if unix.Unshare(unix.CLONE_NEWNET) == nil {
		var err error
		if s, err = openSocket(); err != nil {
			w.err = fmt.Errorf("find out whether there is NFQUEUE: %w", err)
			close(w.known)
			return
		}
		defer s.close() // after known: it waits for the kernel as well
	}
	s.mu.Lock()
	own := s.probe([]statement{queue{1}})
	if own.Outcome == No {
		w.xt = true
		own = s.probe([]statement{xtQueue{1}})
	}
	s.mu.Unlock()
	switch own.Outcome {
	case No:
		w.err = &MissingError{NFQueue, own.Err}
	case Unknown:
		w.err = fmt.Errorf("find out whether there is NFQUEUE: %w", own.Err)
	}
	close(w.known)
}

// queueByXT tells which way to a queue there is, and waits until that is known.
func (f *Firewall) queueByXT() (bool, error) {
	<-f.queues.known
	return f.queues.xt, f.queues.err
}
