//go:build !linux && !openbsd && !freebsd

package endpoint

import "golang.org/x/sys/unix"

func askOrigDst(int, int) error { return unsupported("original destination") }

// read takes the destination of a raw IPv6 packet from a control message.
func (d *origDst) read(m *unix.SocketControlMessage) {
	if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO {
		d.packetInfo(m.Data)
	}
}
