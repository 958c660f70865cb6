//go:build !linux && !openbsd && !freebsd

package socket

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
)

// unsupported is what the files for other systems answer.
func unsupported(what string) error {
	return fmt.Errorf("%s: %w (%s)", what, ErrUnsupported, runtime.GOOS)
}

func setBindany(int, int) error { return unsupported("binding a foreign address") }

func markDiverted(int, int) error { return unsupported("diverting to a socket") }

func bindForeignRaw(int, script.Ends) (bool, error) { return false, nil }

// rawLengthIsPayload: on macOS the length in the IPv4 header that a raw socket
// delivers is in host order and without the header (ip(4)), of no use here.
const rawLengthIsPayload = runtime.GOOS == "darwin"

func askOrigDst(int, int) error { return unsupported("original destination") }

// read takes the destination of a raw IPv6 packet from a control message.
func (d *origDst) read(m *unix.SocketControlMessage) {
	if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO {
		d.packetInfo(m.Data)
	}
}

// newSocket makes a non-blocking socket that programs started later do not
// inherit. The lock keeps a program from being started between the two calls.
func newSocket(family, typ, proto int) (int, error) {
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(family, typ, proto)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

const kernelFixesChecksums = false

var divertAbilities abilities

func newDiverter(script.Divert) (diverter, error) { return nil, unsupported("divert sockets") }

func tcpState(context.Context, netip.AddrPort, netip.AddrPort) (string, error) {
	return "", unsupported("the state of a TCP socket")
}

func tcpDrop(context.Context, netip.AddrPort, netip.AddrPort) error {
	return unsupported("dropping a TCP connection")
}

// askArrival fails: the interface of a datagram is asked for on Linux and the BSDs alone.
func askArrival(int, int) error {
	return fmt.Errorf("the interface of a datagram: %w (%s)", ErrUnsupported, runtime.GOOS)
}

// arrivalIndex knows no control message, because askArrival fails.
func arrivalIndex(unix.SocketControlMessage) (index int, ok bool) { return 0, false }

// Drops is for systems that count what divert sockets drop.
func Drops(context.Context, bool, uint16) (script.Dropped, error) {
	return script.Dropped{}, fmt.Errorf("counters of divert sockets: %w (%s)", ErrUnsupported, runtime.GOOS)
}
