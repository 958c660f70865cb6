package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// kernelMends: divert(4) computes the checksums of a packet that is written
// back.
const kernelMends = true

// divertSocket is a divert(4) socket.
type divertSocket struct {
	*socket
	last unix.Sockaddr // where the packet taken last came from
}

func newDiverter(s Spec) (diverter, error) {
	fd, err := newSocket(family(s.Local.Addr()), unix.SOCK_RAW, unix.IPPROTO_DIVERT)
	if err != nil {
		return nil, fmt.Errorf("divert socket: %w", err)
	}
	if err := unix.Bind(fd, sockaddr(s.Local)); err != nil {
		_ = closeSocket(fd)
		return nil, fmt.Errorf("bind to divert port %d: %w", s.Local.Port(), err)
	}
	return &divertSocket{socket: &socket{spec: s, fd: fd, buf: make([]byte, maxPacket)}}, nil
}

func (d *divertSocket) take(deadline time.Time) ([]byte, netip.AddrPort, error) {
	for {
		n, from, err := unix.Recvfrom(d.fd, d.buf, 0)
		switch {
		case err == nil:
			d.last = from
			if d.spec.omits(Way) {
				d.last = sockaddr(netip.AddrPortFrom(otherWay(addrPort(from).Addr()), 0))
			}
			return d.buf[:n], addrPort(d.last), nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if err := wait(d.fd, unix.POLLIN, deadline); err != nil {
				return nil, netip.AddrPort{}, err
			}
		default:
			return nil, netip.AddrPort{}, fmt.Errorf("receive: %w", err)
		}
	}
}

// reinject writes the packet back with the address that it came with, which
// says whether it goes in (an interface's address) or out (none).
func (d *divertSocket) reinject(b []byte) error {
	for {
		err := unix.Sendto(d.fd, b, 0, d.last)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// turn has the packet written out (no address), or in at the interface that has the address.
func (d *divertSocket) turn(in netip.Addr) { d.last = sockaddr(netip.AddrPortFrom(in, 0)) }

// drop has nothing to do: what was read and is not written back is gone.
func (d *divertSocket) drop() error { return nil }

func (d *divertSocket) close() error { return d.closeFD() }
