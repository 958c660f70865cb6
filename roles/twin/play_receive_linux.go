package twin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// accept takes the connections that wait at a stand-in, as its owner: what is answered there
// belongs to the socket's user.
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
			if _, err := unix.SendmsgN(a.fd, tag(reply, round, r.serial, f.number), nil, nil,
				unix.MSG_NOSIGNAL); err != nil {
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
		if err := s.answer(tag(reply, int(b[1]), r.serial, f.number), from, a,
			func(x netip.Addr) bool { return r.own[x] }); err != nil {
			f.AnswerError = err.Error()
		}
	}
}
