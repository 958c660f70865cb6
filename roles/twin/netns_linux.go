package twin

import (
	"fmt"
	"os"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"pfdivert/roles/lab/namespace"
)

// Netns is a network namespace that exists as a file descriptor alone: it ends with its last socket
// once the descriptor is closed, also when the process is killed. It is safe for concurrent use.
type Netns struct {
	file *os.File
	work chan func()
	stop chan struct{}
	once sync.Once
}

// NewNetns creates an empty network namespace. A refusal is a *namespace.ForbiddenError. The
// caller closes it.
func NewNetns() (*Netns, error) {
	n := &Netns{work: make(chan func()), stop: make(chan struct{})}
	ready := make(chan error, 1)
	namespace.OwnThread(func() {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.file, err = os.Open("/proc/thread-self/ns/net")
		}
		ready <- err
		if err != nil {
			return
		}
		for {
			select {
			case f := <-n.work:
				f()
			case <-n.stop:
				return
			}
		}
	})
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("create a network namespace: %w", namespace.Explain(err))
	}
	return n, nil
}

// Do runs f on the thread of the namespace: sockets that f opens and files below /proc/sys/net and
// /proc/thread-self/net are the namespace's. One f runs at a time.
func (n *Netns) Do(f func() error) error {
	done := make(chan error, 1)
	select {
	case n.work <- func() { done <- f() }:
		return <-done
	case <-n.stop:
		return os.ErrClosed
	}
}

// FD is the namespace's file descriptor, for setns(2) and IFLA_NET_NS_FD. It is valid until Close.
func (n *Netns) FD() int { return int(n.file.Fd()) }

// Dial opens a netlink socket in the namespace.
func (n *Netns) Dial(family int) (*netlink.Conn, error) { return dial(family, n.FD()) }

// Close gives the namespace up.
func (n *Netns) Close() error {
	var err error
	n.once.Do(func() {
		close(n.stop)
		err = n.file.Close()
	})
	return err
}
