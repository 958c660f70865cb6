package twin

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

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
			proto: p.proto, six: p.six, local: netip.AddrPortFrom(every, p.port), device: p.device, transparent: true,
			v6Only: true,
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
				proto: f.Flow.Proto, six: f.Flow.IPv6(), local: f.Flow.From, device: f.Flow.In, transparent: true,
				v6Only: true,
			})
		}
	}
	return nil
}

// places are where flows may come out of the host: at uplinks to the ports that flows ask for, and
// at all devices to those that rules rewrite destinations to.
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

// start opens the socket of a sender and sends the first packet. What is refused at once is a
// result.
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
var outcomes = map[error]FlowOutcome{
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
