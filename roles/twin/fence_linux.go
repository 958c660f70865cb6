package twin

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fence proves that no packet is under way. A datagram of its own over lo queues behind all packets
// that the processor has (netif_rx), and what those cause queues behind it. Once as many datagrams
// came through, one after the other, as a packet may make steps, and nothing else happened, nothing
// will. That holds where all packets are sent from one processor, so whoever sends is bound to it.
type fence struct {
	out, in int // sockets
	passed  int // datagrams without another event between them
	under   bool
}

// fences is how many must pass: more than a packet's hops before its TTL ends.
const fences = 72

// newFence makes the sockets in the calling thread's namespace, whose lo is up.
func newFence() (*fence, error) {
	f := &fence{out: -1, in: -1}
	for _, fd := range []*int{&f.in, &f.out} {
		var err error
		if *fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			f.close()
			return nil, fmt.Errorf("socket: %w", err)
		}
	}
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	err := unix.Bind(f.in, loopback)
	if err == nil {
		var at unix.Sockaddr
		if at, err = unix.Getsockname(f.in); err == nil {
			err = unix.Connect(f.out, at)
		}
	}
	if err != nil {
		f.close()
		return nil, fmt.Errorf("fence: %w", err)
	}
	return f, nil
}

func (f *fence) close() {
	for _, fd := range []int{f.out, f.in} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// send sends a datagram, if none is under way.
func (f *fence) send() error {
	if f.under {
		return nil
	}
	f.under = true
	_, err := unix.Write(f.out, []byte{0})
	return wrap("fence", err)
}

// arrive takes the datagram.
func (f *fence) arrive() {
	var b [8]byte
	if n, err := unix.Read(f.in, b[:]); err == nil && n > 0 {
		f.under = false
		f.passed++
	}
}

// spread reports whether packets change to other processors on their way (RPS), so that a fence
// proves nothing.
func spread() bool {
	mask, err := os.ReadFile("/proc/sys/net/core/rps_default_mask")
	return err == nil && strings.Trim(string(mask), "0,\n") != ""
}

// pin binds the calling thread to a processor: for a negative number, to the one that it is on. It
// returns the processor and what undoes it.
func pin(processor int) (int, func(), error) {
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return 0, nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	if processor < 0 {
		var n uint32
		if _, _, e := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&n)), 0, 0); e != 0 {
			return 0, nil, fmt.Errorf("getcpu: %w", e)
		}
		processor = int(n)
	}
	one.Set(processor)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return 0, nil, fmt.Errorf("sched_setaffinity: %w", err)
	}
	return processor, func() { _ = unix.SchedSetaffinity(0, &before) }, nil
}

// fenceWait is how long a fence's datagram may take: the machine may be busy.
const fenceWait = 10 * time.Second

var errLate = errors.New("a datagram over lo took longer than 10 s")
