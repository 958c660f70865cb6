package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Fencer reports when the other host has processed what this host sent: it sends an ICMP echo
// request behind it, over the same path, and waits for the reply. The path must keep the order. A
// veth keeps it for the packets that one CPU sent; a network card with several queues may not (see
// Rounds).
//
// Fence is safe for concurrent use.
type Fencer struct {
	// Rounds is how many echoes follow each other in a Pass, 1 if less. Two
	// give packets of another queue the time of a round trip to catch up. Set
	// it before the first Pass.
	Rounds int
	// Timeout is how long a Pass waits for a host that does not answer; 2 s if not positive. Only
	// waits for an answer count, each as long as it was meant to be: a process that the scheduler
	// kept from running has not listened. At least fenceTries requests stay unanswered, however
	// long each takes. Set it before the first Pass.
	Timeout time.Duration

	conn *net.IPConn
	raw  syscall.RawConn
	v6   bool
	id   uint16
	own  net.PacketConn // of Drain; nil without
	// drains: a datagram of Drain's has come back.
	drains bool

	mu     sync.Mutex
	busy   bool       // a wave is under way
	next   *fenceWave // the wave that starts when that is over
	closed bool       // no new waves
	worker sync.WaitGroup

	// The fields below belong to the wave under way.
	seq uint16        // sequence number of the last request
	rtt time.Duration // of the last reply
	buf [256]byte     // a reply: IPv4 header with options, ICMP header, 8 bytes
}

// fenceWave is one passage that several callers share: all that called before
// its first request was sent.
type fenceWave struct {
	done chan struct{}
	rtt  time.Duration // of the last round; valid after done, as is err
	err  error

	drained bool          // Drain's datagram has come back
	rounds  int           // that are over
	first   uint16        // sequence number of the round's first request
	sent    int           // requests in this round
	resend  time.Time     // when the round's next request is due
	pause   time.Duration // until then, from the last request on
	silent  time.Duration // the pauses of the requests that nothing answered
}

const (
	fenceTimeout = 2 * time.Second
	// fenceResend is the least time before an echo counts as lost. It is
	// well above what a busy machine takes, well below what a person notices.
	fenceResend = 50 * time.Millisecond
	// fenceTries is how many requests are unanswered at least before the other host counts as lost.
	fenceTries = 5
)

// fenceEpoch is what requests count their time of sending from.
var fenceEpoch = time.Now()

// OpenFence opens a fence between an address of this host and one of another, of the same family.
// It needs the right to open raw sockets.
func OpenFence(local, remote netip.Addr) (*Fencer, error) {
	f := &Fencer{v6: remote.Is6(), id: uint16(rand.Uint32())}
	if local.Is6() != f.v6 {
		return nil, fmt.Errorf("fence from %v to %v: not one address family", local, remote)
	}
	network := "ip4:1"
	if f.v6 {
		network = "ip6:58"
	}
	var err error
	f.conn, err = net.DialIP(network, fenceAddr(local), fenceAddr(remote))
	if err != nil {
		return nil, fmt.Errorf("fence from %v to %v: %w", local, remote, err)
	}
	if err = f.filter(); err == nil {
		f.raw, err = f.conn.SyscallConn()
	}
	if err != nil {
		f.conn.Close()
		return nil, fmt.Errorf("fence from %v to %v: %w", local, remote, err)
	}
	return f, nil
}

// Drain has each Pass wait as well for what this host has queued for itself before it: the system
// handles it one after the other, and a datagram that this process sends to itself comes behind it.
// FreeBSD queues so what a divert socket writes as incoming (netisr_queue_src in
// div_output_inbound, netinet/ip_divert.c), and what comes from another host does not wait for that
// queue. Call it before the first Pass.
func (f *Fencer) Drain() error {
	loopback := net.IPv4(127, 0, 0, 1)
	if f.v6 {
		loopback = net.IPv6loopback
	}
	own, err := net.ListenUDP("udp", &net.UDPAddr{IP: loopback})
	if err != nil {
		return fmt.Errorf("fence to %v: %w", loopback, err)
	}
	f.own = own
	return nil
}

// filter has the kernel drop what is no echo reply. Systems that cannot (only
// Linux has it for IPv4) leave that to the check of every message.
func (f *Fencer) filter() error {
	if f.v6 {
		var only ipv6.ICMPFilter
		only.SetAll(true)
		only.Accept(ipv6.ICMPTypeEchoReply)
		return ipv6.NewPacketConn(f.conn).SetICMPFilter(&only)
	}
	if runtime.GOOS != "linux" {
		return nil
	}
	var only ipv4.ICMPFilter
	only.SetAll(true)
	only.Accept(ipv4.ICMPTypeEchoReply)
	return ipv4.NewPacketConn(f.conn).SetICMPFilter(&only)
}

// Pass returns when everything that this process sent to the other host before
// the call has been processed there, and returns the round trip's time. A lost
// echo is sent again; no answer within Timeout, or the end of ctx, is an error.
//
// Callers that come while an echo is under way share the next one.
func (f *Fencer) Pass(ctx context.Context) (rtt time.Duration, err error) {
	w, lead := f.join()
	if w == nil {
		return 0, f.fail(net.ErrClosed)
	}
	if lead {
		// Let those that are about to pass too join this wave.
		runtime.Gosched()
		f.lead()
	}
	select {
	case <-w.done:
		return w.rtt, w.err
	case <-ctx.Done():
		return 0, f.fail(ctx.Err())
	}
}

// Close closes the fence. Callers that wait in Pass get an error.
func (f *Fencer) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	err := f.conn.Close()
	f.worker.Wait()
	if f.own != nil {
		err = errors.Join(err, f.own.Close())
	}
	return err
}

// join puts the caller into the next wave. The one that finds no wave under
// way must lead it.
func (f *Fencer) join() (w *fenceWave, lead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, false
	}
	if f.next == nil {
		f.next = &fenceWave{done: make(chan struct{})}
	}
	if lead = !f.busy; lead {
		f.busy = true
		f.worker.Add(1)
	}
	return f.next, lead
}

// take begins the next wave, or ends the work when no one waits for one.
func (f *Fencer) take() *fenceWave {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.next
	f.next = nil
	if f.busy = w != nil; !f.busy {
		f.worker.Done()
	}
	return w
}

// lead sends the first wave. On a veth the reply is there as soon as the
// request has been sent, and nothing waits. Otherwise, and for further waves, a
// goroutine goes on, so that the caller can heed its own context.
func (f *Fencer) lead() {
	w := f.take()
	if f.play(w, false) {
		w = f.take()
	}
	if w == nil {
		return
	}
	go func() {
		for ; w != nil; w = f.take() {
			f.play(w, true)
		}
	}()
}

// play carries the wave on until it is over. Unless it may wait, it stops
// where it would have to, and gives false.
func (f *Fencer) play(w *fenceWave, wait bool) (over bool) {
	if f.own != nil && !w.drained {
		if !wait {
			return false
		}
		w.drained = true
		w.err = f.drain()
	}
	for w.rounds < max(1, f.Rounds) && w.err == nil {
		came, err := f.step(w, wait)
		switch {
		case err != nil:
			w.err = f.fail(err)
		case came:
			w.rounds, w.sent, w.resend, w.pause, w.silent = w.rounds+1, 0, time.Time{}, 0, 0
		case !wait:
			return false
		}
	}
	w.rtt = f.rtt
	close(w.done)
	return true
}

// drain sends itself datagrams until one comes: each is behind what was queued before the first. A
// host whose packet filter lets none pass is not asked again. Where some have come, one must.
func (f *Fencer) drain() error {
	first, patience := f.seq+1, fenceTimeout
	if f.drains {
		patience = f.timeout()
	}
	for range patience / fenceResend {
		f.seq++
		sent := binary.BigEndian.AppendUint16(nil, f.seq)
		if _, err := f.own.WriteTo(sent, f.own.LocalAddr()); err != nil && !errors.Is(err, syscall.ENOBUFS) {
			break
		}
		if err := f.own.SetReadDeadline(time.Now().Add(fenceResend)); err != nil {
			return f.fail(err)
		}
		for {
			n, from, err := f.own.ReadFrom(f.buf[:])
			if err != nil {
				break
			}
			if from.String() == f.own.LocalAddr().String() && n == len(sent) &&
				binary.BigEndian.Uint16(f.buf[:])-first <= f.seq-first {
				f.drains = true
				return nil
			}
		}
	}
	if f.drains {
		return f.fail(fmt.Errorf("no datagram to %v came back in %v", f.own.LocalAddr(), patience))
	}
	err := f.own.Close()
	f.own = nil
	return err
}

// timeout is how long a host that does not answer is waited for.
func (f *Fencer) timeout() time.Duration {
	if f.Timeout <= 0 {
		return fenceTimeout
	}
	return f.Timeout
}

// step sends a request if it is time to, and looks for a reply, at most until
// it is time to send again.
func (f *Fencer) step(w *fenceWave, wait bool) (came bool, err error) {
	now := time.Now()
	if !now.Before(w.resend) {
		if w.silent += w.pause; w.silent >= f.timeout() && w.sent >= fenceTries {
			return false, fmt.Errorf("no answer to %d echo requests in %v", w.sent, w.silent)
		}
		if w.sent == 0 {
			w.first = f.seq + 1
		}
		if err := f.send(now); err != nil {
			return false, err
		}
		w.sent++
		w.pause = max(min(4*f.rtt, f.timeout()/2), fenceResend)
		w.resend = now.Add(w.pause)
	}
	if wait {
		if came, err = f.receive(w.first, w.resend); came || err != nil {
			return came, err
		}
	}
	// A deadline that is over keeps the socket from being read at all: an answer may wait there.
	return f.receive(w.first, time.Time{})
}

// send sends a request.
func (f *Fencer) send(now time.Time) error {
	f.seq++
	// The reply brings back when it was asked for.
	data := binary.BigEndian.AppendUint64(nil, uint64(now.Sub(fenceEpoch)))
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(f.id), Seq: int(f.seq), Data: data}}
	if f.v6 {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil) // the kernel sums ICMPv6 (RFC 3542 section 3.1)
	if err != nil {
		return err
	}
	_, err = f.conn.Write(b)
	if errors.Is(err, syscall.ENOBUFS) {
		return nil // as good as lost on the way
	}
	return err
}

// receive looks for the reply to a request that was sent since first, until a
// time; only for what is there already, if that is zero.
func (f *Fencer) receive(first uint16, until time.Time) (came bool, err error) {
	if err := f.conn.SetReadDeadline(until); err != nil {
		return false, err
	}
	var fault error
	err = f.raw.Read(func(fd uintptr) (done bool) {
		for {
			n, err := syscall.Read(int(fd), f.buf[:])
			switch {
			case errors.Is(err, syscall.EINTR):
			case errors.Is(err, syscall.EAGAIN):
				return until.IsZero()
			case err != nil:
				fault = os.NewSyscallError("read", err)
				return true
			default:
				if came = f.match(f.buf[:n], first); came {
					return true
				}
			}
		}
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return came, errors.Join(err, fault)
}

// match reports whether a packet is the reply to a request of this fence since
// first, and takes the time that it took.
func (f *Fencer) match(b []byte, first uint16) bool {
	proto := 58
	kind := icmp.Type(ipv6.ICMPTypeEchoReply)
	if !f.v6 {
		proto, kind = 1, ipv4.ICMPTypeEchoReply
		// IPv4 raw sockets give the IP header too.
		if len(b) == 0 || len(b) < int(b[0]&0x0f)*4 {
			return false
		}
		b = b[int(b[0]&0x0f)*4:]
	}
	m, err := icmp.ParseMessage(proto, b)
	if err != nil || m.Type != kind {
		return false
	}
	echo, ok := m.Body.(*icmp.Echo)
	if !ok || echo.ID != int(f.id) || len(echo.Data) != 8 {
		return false
	}
	// Sequence numbers wrap.
	if uint16(echo.Seq)-first > f.seq-first {
		return false
	}
	rtt := time.Since(fenceEpoch) - time.Duration(binary.BigEndian.Uint64(echo.Data))
	f.rtt = min(max(rtt, 0), fenceTimeout)
	return true
}

func (f *Fencer) fail(err error) error {
	return fmt.Errorf("fence to %v: %w", f.conn.RemoteAddr(), err)
}

func fenceAddr(a netip.Addr) *net.IPAddr {
	return &net.IPAddr{IP: a.AsSlice(), Zone: a.Zone()}
}
