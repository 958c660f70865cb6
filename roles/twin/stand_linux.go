package twin

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// stand is a stand-in for a socket: of the host, which is of a program that is not in the twin, or
// of the internet.
type stand struct {
	open
	fd     int
	number int    // in Config.Sockets, -1 outside
	out    string // the device outside, "" inside
}

// listen makes the stand-ins of the host's sockets. Workers that share a port have one. Those that
// could not be made are in the error: the flows that they would get look refused.
func (t *Twin) listen() error {
	var errs []error
	for i, s := range t.Config.Sockets {
		same := func(o BoundSocket) bool {
			return o.Proto == s.Proto && o.Local == s.Local && o.Index == s.Index && o.V6Only == s.V6Only
		}
		if slices.IndexFunc(t.Config.Sockets, same) < i {
			continue
		}
		if s.Local.Addr().Is6() && !hasIPv6() {
			continue
		}
		o := open{
			proto: s.Proto, six: s.Local.Addr().Is6(), local: s.Local, mark: s.Mark, uid: s.UID, gid: s.GID,
			transparent: s.Transparent, freeBind: s.FreeBind, reuseAddr: s.ReuseAddr, reusePort: s.ReusePort,
			v6Only: s.V6Only,
		}
		if s.Index != 0 {
			l := slices.IndexFunc(t.Config.Links, func(l Link) bool { return l.Index == s.Index })
			if l < 0 {
				continue // its device is gone
			}
			o.device = t.Config.Links[l].Name
		}
		n := &stand{open: o, number: i}
		if err := n.start(); err != nil {
			errs = append(errs, fmt.Errorf("stand-in for %s %v of %s: %w", s.Proto, s.Local, s.Comm, err))
			continue
		}
		t.stands = append(t.stands, n)
	}
	return errors.Join(errs...)
}

// start opens the socket, in the calling thread's namespace.
func (s *stand) start() error {
	fd, err := s.socket()
	if err != nil {
		return err
	}
	if s.proto == "tcp" {
		if err := unix.Listen(fd, 128); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("listen: %w", err)
		}
	}
	s.fd = fd
	return nil
}

// answer sends a datagram back to the one who asked. A stand-in of a transparent socket does so
// from a socket that is bound to the original destination and closed at once: one that stays open
// would take the flow's next datagram.
func (s *stand) answer(b []byte, to netip.AddrPort, a arrival, own func(netip.Addr) bool) error {
	from := a.original
	if s.out == "" && s.transparent && from.IsValid() && !(own(from.Addr()) && from.Port() == s.local.Port()) {
		o := open{
			proto: "udp", six: from.Addr().Is6(), local: from, mark: s.mark, uid: s.uid, gid: s.gid,
			transparent: true, reuseAddr: true, v6Only: true,
		}
		fd, err := o.socket()
		if err != nil {
			return err
		}
		err = unix.Sendto(fd, b, 0, sockaddr(to, o.six))
		_ = unix.Close(fd)
		return wrap("send", err)
	}
	return wrap("send", unix.Sendmsg(s.fd, b, source(a.header, s.six), sockaddr(to, s.six), 0))
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
