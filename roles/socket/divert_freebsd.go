package socket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"pfdivert/matrix/script"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelFixesChecksums: outgoing packets are diverted before their UDP checksum is
// computed, and no one computes it when they are written back.
const kernelFixesChecksums = false

// pfDivert is PF_DIVERT of FreeBSD 14 (sys/socket.h); the older kernels have
// protocol IPPROTO_DIVERT (258) of AF_INET, for both families (divert(4)).
const pfDivert = 44

// divertSocket is a divert(4) socket.
type divertSocket struct {
	spec script.Divert
	*socket
	// last is the address of the packet taken last: rule number as port, an
	// interface's address for "in", and the interface's name in sin_zero. All 16
	// bytes must go back, which a unix.Sockaddr would not keep.
	last    [16]byte
	lastLen uint32
}

var divertAbilities = abilities{read: true, recv: true, writeTo: true, drop: true, share: true}

func newDiverter(s script.Divert) (diverter, error) {
	fd, err := newSocket(pfDivert, unix.SOCK_RAW, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) {
		fd, err = newSocket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_DIVERT)
	}
	if err != nil {
		return nil, fmt.Errorf("divert socket: %w", err)
	}
	if s.Unprivileged {
		if err := DropPrivilege(); err != nil {
			_ = closeSocket(fd)
			return nil, fmt.Errorf("give up all privilege: %w", err)
		}
	}
	if s.Shared {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT_LB, 1); err != nil {
			_ = closeSocket(fd)
			return nil, fmt.Errorf("share divert port %d (SO_REUSEPORT_LB): %w", s.Local.Port(), err)
		}
	}
	// The address is ignored, but must be one of AF_INET.
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(s.Local.Port())}); err != nil {
		_ = closeSocket(fd)
		return nil, fmt.Errorf("bind to divert port %d: %w", s.Local.Port(), err)
	}
	return &divertSocket{spec: s, socket: &socket{fd: fd, buf: make([]byte, script.MaxPacket)}}, nil
}

func (d *divertSocket) take(deadline time.Time) ([]byte, netip.AddrPort, error) {
	for {
		n, errno := d.call()
		switch errno {
		case 0:
			if d.lastLen == 0 {
				return d.buf[:n], netip.AddrPort{}, nil
			}
			d.lastLen = min(d.lastLen, uint32(len(d.last)))
			if d.spec.Omits(script.Name) {
				clear(d.last[8:])
			}
			// struct sockaddr_in: len, family, port, address, zero. The port is in
			// host order here.
			port := uint16(d.last[2]) | uint16(d.last[3])<<8
			via := netip.AddrFrom4([4]byte(d.last[4:]))
			if d.spec.Omits(script.GoOn) {
				clear(d.last[2:4]) // ipfw begins with its first rule
			}
			if d.spec.Omits(script.Way) {
				via = otherWay(via)
				d.turn(via)
			}
			if a := d.spec.WriteTo; a.Is4() {
				addr := a.As4()
				copy(d.last[4:8], addr[:])
			}
			return d.buf[:n], netip.AddrPortFrom(via, port), nil
		case unix.EINTR:
		case unix.EAGAIN:
			if err := wait(d.fd, unix.POLLIN, deadline); err != nil {
				return nil, netip.AddrPort{}, err
			}
		default:
			return nil, netip.AddrPort{}, fmt.Errorf("receive: %w", errno)
		}
	}
}

// call makes the system call that takes a packet. Only recvfrom(2) tells an address; recv(2) is
// recvfrom(2) without room for one.
func (d *divertSocket) call() (int, unix.Errno) {
	var n uintptr
	var errno unix.Errno
	d.lastLen = 0
	switch d.spec.Call {
	case script.Read:
		n, _, errno = unix.Syscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(&d.buf[0])),
			uintptr(len(d.buf)))
	case script.Recv:
		n, _, errno = unix.Syscall6(unix.SYS_RECVFROM, uintptr(d.fd),
			uintptr(unsafe.Pointer(&d.buf[0])), uintptr(len(d.buf)), 0, 0, 0)
	default:
		d.lastLen = uint32(len(d.last))
		n, _, errno = unix.Syscall6(unix.SYS_RECVFROM, uintptr(d.fd),
			uintptr(unsafe.Pointer(&d.buf[0])), uintptr(len(d.buf)), 0,
			uintptr(unsafe.Pointer(&d.last)), uintptr(unsafe.Pointer(&d.lastLen)))
	}
	return int(n), errno
}

// interfaceName is what stands behind the address, up to a NUL (divert_packet,
// netinet/ip_divert.c).
func (d *divertSocket) interfaceName() string {
	if d.lastLen == 0 {
		return ""
	}
	name, _, _ := bytes.Cut(d.last[8:], []byte{0})
	return string(name)
}

// reinject writes the packet back with the address that it came with: ipfw
// goes on behind the rule of that number.
func (d *divertSocket) reinject(b []byte) error {
	if d.lastLen == 0 {
		return errors.New("it is not known whence the packet came")
	}
	for {
		_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(d.fd),
			uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0,
			uintptr(unsafe.Pointer(&d.last)), uintptr(d.lastLen))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// turn has the packet written out (no address), or in at the interface that has the address.
// ipfw goes on behind the same rule.
func (d *divertSocket) turn(in netip.Addr) {
	var addr [4]byte
	switch {
	case in.Is4():
		addr = in.As4()
	case !in.IsUnspecified(): // it stands for an interface, and only IPv4's addresses do
		addr = [4]byte{127, 0, 0, 1}
	}
	copy(d.last[4:], addr[:])
	clear(d.last[8:]) // the name of an interface
}

// drop has nothing to do: what was read and is not written back is gone.
func (d *divertSocket) drop() error { return nil }

func (d *divertSocket) close() error { return d.closeFD() }

// Drops reads what was dropped for want of a divert socket, on all ports together. FreeBSD has such
// a counter since 15.
func Drops(ctx context.Context, _ bool, _ uint16) (script.Dropped, error) {
	stdout, stderr, err := run(exec.CommandContext(ctx, "netstat", "-s", "-p", "divert"))
	if err != nil || stderr != "" {
		return script.Dropped{}, fmt.Errorf("netstat: %w", toolError(err, stderr))
	}
	return parseFreeBSDDivert(stdout)
}
