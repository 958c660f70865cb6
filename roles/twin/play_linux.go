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

// patience is how long nothing happens until the flows that are not done are taken for lost, where no
// fence can prove it.
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
	return wrap("epoll", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

func (p *player) change(fd int, events uint32) error {
	return wrap("epoll", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
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
	*Result
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
		r.flows = append(r.flows, &sender{Result: &Result{Flow: f, Outcome: Silence, Socket: -1}, number: i, fd: -1})
	}
	return r
}

// outside opens the sockets of everyone else: the receivers that these flows need and are not there
// yet, and the senders.
func (r *playing) outside() error {
	for _, p := range r.places() {
		if r.Twin.outside[p] != nil {
			continue
		}
		every := netip.IPv4Unspecified()
		if p.six {
			every = netip.IPv6Unspecified()
		}
		s := &stand{number: -1, out: p.device, open: open{
			proto: p.proto, six: p.six, local: netip.AddrPortFrom(every, p.port), device: p.device, transparent: true, v6Only: true,
		}}
		if err := s.start(); err != nil {
			return fmt.Errorf("%s port %d at %s: %w", p.proto, p.port, p.device, err)
		}
		r.Twin.outside[p] = s
		if err := r.player.add(s.fd, unix.EPOLLIN, s); err != nil {
			return err
		}
	}
	for _, f := range r.flows {
		if !f.Flow.Local() {
			r.start(f, open{
				proto: f.Flow.Proto, six: f.Flow.IPv6(), local: f.Flow.From, device: f.Flow.In, transparent: true, v6Only: true,
			})
		}
	}
	return nil
}

// places are where flows may come out of the host: at uplinks to the ports that flows ask for, and at
// all devices to those that rules rewrite destinations to.
func (r *playing) places() []place {
	asked := map[place]bool{} // without device
	for _, f := range r.flows {
		asked[place{"", f.Flow.Proto, f.Flow.IPv6(), f.Flow.To.Port()}] = true
	}
	rewritten := map[place]bool{}
	for _, a := range r.hints.targets {
		for p := range asked {
			port := a.Port()
			if port == 0 {
				port = p.port
			}
			if !a.Addr().IsValid() || a.Addr().Is6() == p.six {
				rewritten[place{"", p.proto, p.six, port}] = true
			}
		}
	}
	var all []place
	for _, o := range r.outers {
		if !o.inner.Up() || !o.inner.Carrier {
			continue
		}
		for p := range rewritten {
			p.device = o.inner.Name
			all = append(all, p)
		}
		for p := range asked {
			if r.uplinks[o.at.Index] && !rewritten[p] {
				p.device = o.inner.Name
				all = append(all, p)
			}
		}
		for _, f := range r.flows {
			p := place{"", f.Flow.Proto, f.Flow.IPv6(), f.Flow.To.Port()}
			if !r.uplinks[o.at.Index] && !rewritten[p] && r.onLink(o.at.Index, f.Flow.To.Addr()) {
				p.device = o.inner.Name
				all = append(all, p)
			}
		}
	}
	return all
}

// onLink reports whether a route leads to the address by the device.
func (t *Twin) onLink(index int, a netip.Addr) bool {
	for _, r := range t.Config.Routes {
		if r.Type == unix.RTN_UNICAST && r.Dst.IsValid() && r.Dst.Contains(a) {
			for _, h := range r.Hops {
				if h.Index == index {
					return true
				}
			}
		}
	}
	return false
}

// start opens the socket of a sender and sends the first packet. What is refused at once is a result.
func (r *playing) start(f *sender, o open) {
	fd, err := o.socket()
	if err != nil {
		f.Outcome, f.Error, f.done = Denied, err.Error(), true
		return
	}
	f.fd = fd
	if o.proto == "udp" { // errors of ICMP that TCP tells anyway
		level, option := unix.SOL_IP, unix.IP_RECVERR
		if o.six {
			level, option = unix.SOL_IPV6, unix.IPV6_RECVERR
		}
		_ = unix.SetsockoptInt(fd, level, option, 1)
	}
	err = unix.Connect(fd, sockaddr(f.Flow.To, o.six))
	if sa, e := unix.Getsockname(fd); e == nil {
		f.Source = addrPort(sa)
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		r.fail(f, err)
		return
	}
	f.open = true
	r.open++
	events := uint32(unix.EPOLLOUT | unix.EPOLLIN)
	if o.proto == "udp" {
		events = unix.EPOLLIN
		f.connected = true
		if !r.ask(f) {
			return
		}
	}
	if err := r.player.add(fd, events, f); err != nil {
		r.fail(f, err)
	}
}

// ask sends the next request, and reports whether the flow goes on.
func (r *playing) ask(f *sender) bool {
	_, err := unix.SendmsgN(f.fd, tag(question, f.Rounds, r.serial, f.number), nil, nil, unix.MSG_NOSIGNAL)
	if err != nil {
		r.fail(f, err)
		return false
	}
	return true
}

// outcomes are what errors of a sender's socket mean before the connection is made.
var outcomes = map[error]Outcome{
	unix.ECONNREFUSED: Refused, unix.ECONNRESET: Reset, unix.EPIPE: Reset,
	unix.ENETUNREACH: NoRoute, unix.EHOSTUNREACH: NoRoute, unix.EHOSTDOWN: NoRoute, unix.EADDRNOTAVAIL: NoRoute,
	unix.EPERM: Denied, unix.EACCES: Denied, unix.EINVAL: Denied,
}

// fail ends a flow with an error.
func (r *playing) fail(f *sender, err error) {
	if f.done {
		return
	}
	var errno unix.Errno
	f.Error = err.Error()
	f.Outcome = Silence
	if errors.As(err, &errno) && outcomes[errno] != "" {
		f.Outcome = outcomes[errno]
	}
	if f.Outcome == Silence && f.connected && f.Flow.Proto == "tcp" {
		f.Outcome = Hang
	}
	r.finish(f)
}

func (r *playing) finish(f *sender) {
	f.done = true
	if f.open {
		r.open--
	}
	if f.fd >= 0 {
		r.player.forget(f.fd)
		f.fd = -1
	}
}

// play opens the senders of the host itself and waits for events until all flows are done, or until
// nothing happened for some time.
func (r *playing) play(ctx context.Context) error {
	for _, f := range r.flows {
		if f.Flow.Local() {
			r.start(f, open{
				proto: f.Flow.Proto, six: f.Flow.IPv6(), local: f.Flow.From, mark: f.Flow.Mark, uid: f.Flow.UID, gid: f.Flow.GID,
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

// proceed goes on with a flow whose socket is ready.
func (r *playing) proceed(f *sender, events uint32) error {
	if code, err := unix.GetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
		r.fail(f, unix.Errno(code))
		return nil
	}
	if !f.connected && events&unix.EPOLLOUT != 0 {
		f.connected = true
		if !r.ask(f) {
			return nil
		}
		return r.player.change(f.fd, unix.EPOLLIN)
	}
	b := make([]byte, 2*tagSize)
	n, err := unix.Read(f.fd, b)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		r.fail(f, err)
		return nil
	case n == 0 && f.Flow.Proto == "tcp":
		f.Outcome, f.Error = Reset, "closed by the receiver"
		r.finish(f)
		return nil
	case n != tagSize || string(b[:n]) != string(tag(reply, f.Rounds, r.serial, f.number)):
		return nil // no answer of this flow's
	}
	if f.Rounds++; f.Rounds == rounds {
		f.Outcome = Complete
		r.finish(f)
		return nil
	}
	r.ask(f)
	return nil
}

// accept takes the connections that wait at a stand-in, as its owner: what is answered there belongs
// to the socket's user.
func (r *playing) accept(s *stand) error {
	return asOwner(s.uid, s.gid, func() error {
		for {
			fd, from, err := unix.Accept4(s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if errors.Is(err, unix.EAGAIN) {
				return nil
			} else if errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EINTR) {
				continue
			} else if err != nil {
				return wrap("accept", err)
			}
			a := &accepted{stand: s, fd: fd, from: addrPort(from)}
			if to, err := unix.Getsockname(fd); err == nil {
				a.to = addrPort(to)
			}
			if s.out == "" {
				a.original = originalDst(fd, a.to.Addr().Is6())
			}
			r.accepted = append(r.accepted, a)
			if err := r.player.add(fd, unix.EPOLLIN, a); err != nil {
				return err
			}
		}
	})
}

// serve answers what came by a connection.
func (r *playing) serve(a *accepted) {
	b := make([]byte, 4*tagSize)
	for {
		n, err := unix.Read(a.fd, b)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil || n == 0 {
			r.player.forget(a.fd)
			a.fd = -1
			return
		}
		a.buffer = append(a.buffer, b[:n]...)
		for len(a.buffer) >= tagSize {
			f := r.of(a.buffer[:tagSize], question)
			round := int(a.buffer[1])
			a.buffer = a.buffer[tagSize:]
			if f == nil {
				continue
			}
			a.flow = f
			f.Received++
			r.reached(f, a.stand, a.from, a.to, a.original)
			if _, err := unix.SendmsgN(a.fd, tag(reply, round, r.serial, f.number), nil, nil, unix.MSG_NOSIGNAL); err != nil {
				f.AnswerError = err.Error()
			}
		}
	}
}

// of returns the flow of a request or an answer, nil where it is of none of this run's.
func (r *playing) of(b []byte, kind byte) *sender {
	if len(b) != tagSize || b[0] != kind || binary.BigEndian.Uint16(b[2:]) != r.serial {
		return nil
	}
	n := int(binary.BigEndian.Uint32(b[4:]))
	if n >= len(r.flows) {
		return nil
	}
	return r.flows[n]
}

// reached notes who got a flow. The first one counts: later packets may take another way.
func (r *playing) reached(f *sender, s *stand, from, to, original netip.AddrPort) {
	if f.Reached != Nobody {
		return
	}
	f.SeenFrom, f.SeenTo, f.Original, f.Socket, f.Out = from, to, original, s.number, s.out
	switch {
	case s.out == "":
		f.Reached = AtSocket
	case r.uplinks[r.indexOf(s.out)]:
		f.Reached = Internet
	default:
		f.Reached = ClientAt
	}
}

// indexOf is the index of the device that has the addresses where one of that name leads.
func (t *Twin) indexOf(name string) int {
	for _, o := range t.outers {
		if o.inner.Name == name {
			return o.at.Index
		}
	}
	return 0
}

// receive answers the datagrams that wait at a stand-in.
func (r *playing) receive(s *stand) {
	b, oob := make([]byte, 64), make([]byte, 256)
	for failed := 0; ; {
		n, m, _, sa, err := unix.Recvmsg(s.fd, b, oob, 0)
		if err != nil {
			// One of ICMP for an answer is told once, and there may be datagrams behind it.
			if failed++; failed > 3 || errors.Is(err, unix.EAGAIN) {
				return
			}
			continue
		}
		from, a := addrPort(sa), parseArrival(oob[:m])
		if f := r.of(b[:n], reply); f != nil {
			f.AnswerError = fmt.Sprintf("the answer came to %v instead of the sender", s.local)
			continue
		}
		f := r.of(b[:n], question)
		if f == nil {
			continue
		}
		f.Received++
		r.reached(f, s, from, a.original, netip.AddrPort{})
		if err := s.answer(tag(reply, int(b[1]), r.serial, f.number), from, a, func(x netip.Addr) bool { return r.own[x] }); err != nil {
			f.AnswerError = err.Error()
		}
	}
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
func (r *playing) results() []Result {
	all := make([]Result, 0, len(r.flows))
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
		all = append(all, *f.Result)
	}
	return all
}
