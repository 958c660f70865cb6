package socket

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
)

// kernelFixesChecksums: divert(4) computes the checksums of a packet that is written
// back.
const kernelFixesChecksums = true

// divertSocket is a divert(4) socket.
type divertSocket struct {
	spec script.Divert
	*socket
	last unix.Sockaddr // where the packet taken last came from
}

// divertAbilities: Go has no recv(2) there, which programs must call in libc; there it is
// recvfrom(2) without an address.
var divertAbilities = abilities{read: true}

func newDiverter(s script.Divert) (diverter, error) {
	fd, err := newSocket(family(s.Local.Addr()), unix.SOCK_RAW, unix.IPPROTO_DIVERT)
	if err != nil {
		return nil, fmt.Errorf("divert socket: %w", err)
	}
	if err := unix.Bind(fd, sockaddr(s.Local)); err != nil {
		_ = closeSocket(fd)
		return nil, fmt.Errorf("bind to divert port %d: %w", s.Local.Port(), err)
	}
	return &divertSocket{spec: s, socket: &socket{fd: fd, buf: make([]byte, script.MaxPacket)}}, nil
}

func (d *divertSocket) take(deadline time.Time) ([]byte, netip.AddrPort, error) {
	for {
		var n int
		var from unix.Sockaddr
		var err error
		if d.spec.Call == script.Read {
			n, err = unix.Read(d.fd, d.buf)
		} else {
			n, from, err = unix.Recvfrom(d.fd, d.buf, 0)
		}
		switch {
		case err == nil:
			d.last = from
			if from == nil {
				return d.buf[:n], netip.AddrPort{}, nil
			}
			if d.spec.Omits(script.Way) {
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
// reports whether it goes in (an interface's address) or out (none).
func (d *divertSocket) reinject(b []byte) error {
	if d.last == nil {
		return errors.New("it is not known whence the packet came")
	}
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

// Drops reads what the divert sockets of a family have dropped, all together, and how much
// room one has.
func Drops(ctx context.Context, inet6 bool, _ uint16) (script.Dropped, error) {
	proto, variable := "divert", "net.inet.divert.recvspace"
	if inet6 {
		proto, variable = "divert6", "net.inet6.divert.recvspace"
	}
	stdout, stderr, err := run(exec.CommandContext(ctx, "netstat", "-s", "-p", proto))
	if err != nil || stderr != "" {
		return script.Dropped{}, fmt.Errorf("netstat: %w", toolError(err, stderr))
	}
	d, err := parseDivertStats(stdout)
	if err != nil {
		return d, err
	}
	stdout, stderr, err = run(exec.CommandContext(ctx, "sysctl", "-n", variable))
	if err == nil {
		d.Room, err = strconv.Atoi(strings.TrimSpace(stdout))
	}
	if err != nil {
		return d, fmt.Errorf("sysctl %s: %w", variable, toolError(err, stderr))
	}
	return d, nil
}
