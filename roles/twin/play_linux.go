package twin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Data of flows: requests and answers of 8 bytes, which say whose they are.
const (
	tagSize  = 8
	rounds   = 3
	question = 'Q'
	reply    = 'A'
)

// tag is a request or an answer: its kind, the round, the run's number and the flow's.
func tag(kind byte, round int, serial uint16, flow int) []byte {
	b := []byte{kind, byte(round), 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(b[2:], serial)
	binary.BigEndian.PutUint32(b[4:], uint32(flow))
	return b
}

// patience is how long nothing happens until the flows that are not done are taken for lost, where
// no fence can prove it.
const patience = 200 * time.Millisecond

// player waits for events of all sockets of a twin.
type player struct {
	epoll  int
	who    map[int32]any // by file descriptor: *stand, *sender, *accepted, *queues, *fence
	serial uint16        // of the run
	fence  *fence        // nil where packets change processors
}

func newPlayer() (*player, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &player{epoll: fd, who: map[int32]any{}}, nil
}

func (p *player) close() {
	p.lower()
	_ = unix.Close(p.epoll)
}

// lower takes the fence away.
func (p *player) lower() {
	if p.fence != nil {
		delete(p.who, int32(p.fence.in))
		p.fence.close()
		p.fence = nil
	}
}

func (p *player) add(fd int, events uint32, who any) error {
	p.who[int32(fd)] = who
	return wrap("epoll", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd,
		&unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

func (p *player) change(fd int, events uint32) error {
	return wrap("epoll", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_MOD, fd,
		&unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

// forget closes a connection.
func (p *player) forget(fd int) {
	delete(p.who, int32(fd))
	discard(fd)
}

// place is where a stand-in of everyone else listens.
type place struct {
	device string
	proto  string
	six    bool
	port   uint16
}

// sender is the socket that begins a flow.
type sender struct {
	*FlowResult
	number    int
	fd        int
	open      bool // it is waited for
	connected bool
	done      bool
}

// accepted is a connection at a stand-in.
type accepted struct {
	stand              *stand
	fd                 int
	from, to, original netip.AddrPort
	flow               *sender // nil until data said which
	buffer             []byte
}

// playing is one call of Play.
type playing struct {
	*Twin
	serial   uint16
	flows    []*sender
	accepted []*accepted
	open     int // flows that are not done
}

func (t *Twin) newRun(flows []Flow) *playing {
	t.player.serial++
	r := &playing{Twin: t, serial: t.player.serial}
	for i, f := range flows {
		r.flows = append(r.flows, &sender{FlowResult: &FlowResult{Flow: f, Outcome: Silence, Socket: -1}, number: i,
			fd: -1})
	}
	return r
}

// play opens the senders of the host itself and waits for events until all flows are done, or until
// nothing happened for some time.
func (r *playing) play(ctx context.Context) error {
	for _, f := range r.flows {
		if f.Flow.Local() {
			r.start(f, open{
				proto: f.Flow.Proto, six: f.Flow.IPv6(), local: f.Flow.From, mark: f.Flow.Mark, uid: f.Flow.UID,
				gid:         f.Flow.GID,
				transparent: f.Flow.From.Addr().IsValid() && !r.own[f.Flow.From.Addr()], v6Only: true,
			})
		}
	}
	return r.wait(ctx)
}

// wait handles events until all flows are done, or until nothing more can happen.
func (r *playing) wait(ctx context.Context) error {
	events := make([]unix.EpollEvent, 128)
	fence := r.player.fence
	if fence != nil {
		fence.passed = 0
	}
	for starved := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		timeout := patience
		if r.open == 0 {
			timeout = 0
		} else if fence != nil {
			timeout = fenceWait
			if err := fence.send(); err != nil {
				return err
			}
		}
		began := time.Now()
		n, err := unix.EpollWait(r.player.epoll, events, int(timeout/time.Millisecond))
		if errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return fmt.Errorf("epoll: %w", err)
		}
		happened := false
		for _, e := range events[:n] {
			if fence != nil && int(e.Fd) == fence.in {
				fence.arrive()
				continue
			}
			happened = true
			if err := r.event(e); err != nil {
				return err
			}
		}
		switch {
		case happened:
			starved = 0
			if fence != nil {
				fence.passed = 0
			}
		case r.open == 0:
			return nil
		case fence != nil && n == 0:
			return errLate
		case fence != nil && fence.passed < fences:
		case fence == nil && time.Since(began) > patience*3/2 && starved < 5:
			starved++ // this process did not run, and perhaps the kernel's threads did not
		default:
			return nil
		}
	}
}

// event handles an event of a socket.
func (r *playing) event(e unix.EpollEvent) error {
	switch who := r.player.who[e.Fd].(type) {
	case *stand:
		if who.proto == "tcp" {
			return r.accept(who)
		}
		r.receive(who)
	case *accepted:
		r.serve(who)
	case *sender:
		return r.proceed(who, e.Events)
	case *queues:
		return who.accept()
	}
	return nil
}

// end closes the connections that are still open.
func (r *playing) end() {
	for _, f := range r.flows {
		if f.fd >= 0 {
			r.player.forget(f.fd)
		}
	}
	for _, a := range r.accepted {
		if a.fd >= 0 {
			r.player.forget(a.fd)
		}
	}
}

// results says what happened to the flows.
func (r *playing) results() []FlowResult {
	all := make([]FlowResult, 0, len(r.flows))
	for _, f := range r.flows {
		// A connection whose data never came is the flow's if it has its source.
		for _, a := range r.accepted {
			if f.Flow.Proto == "tcp" && f.Reached == Nobody && a.flow == nil && a.from == f.Source {
				r.reached(f, a.stand, a.from, a.to, a.original)
			}
		}
		if !f.done {
			switch {
			case f.Flow.Proto == "tcp" && f.connected, f.Flow.Proto == "udp" && f.Rounds > 0:
				f.Outcome = Hang
			default:
				f.Outcome = Silence
			}
		}
		all = append(all, *f.FlowResult)
	}
	return all
}
