package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// setBindany lets the socket bind an address that is not the host's own
// (IP_TRANSPARENT, ip(7); 75 is IPV6_TRANSPARENT, uapi/linux/in6.h).
func setBindany(fd, family int) error {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
}

// markDiverted marks the socket transparent: nftables' tproxy finds no other
// (net/netfilter/nft_tproxy.c).
func markDiverted(fd, family int) error { return setBindany(fd, family) }

func bindForeignRaw(int, script.Ends) (bool, error) { return false, nil }

// rawLengthIsPayload: see bindany_other.go.
const rawLengthIsPayload = false

// askOrigDst asks for the original destination of each datagram (uapi
// linux/in.h: 20, linux/in6.h: 74; net/ipv4/ip_sockglue.c, ip_cmsg_recv_dstaddr).
func askOrigDst(fd, family int) error {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, 1)
}

// read takes the destination from a control message: a socket address, or for
// raw IPv6 the packet info.
func (d *origDst) read(m *unix.SocketControlMessage) {
	switch {
	case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_ORIGDSTADDR && len(m.Data) >= 8:
		d.port = binary.BigEndian.Uint16(m.Data[2:]) // struct sockaddr_in: family, port, address
		d.addr = netip.AddrFrom4([4]byte(m.Data[4:]))
	case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_ORIGDSTADDR && len(m.Data) >= 24:
		d.port = binary.BigEndian.Uint16(m.Data[2:]) // struct sockaddr_in6: family, port, flow, address
		d.addr = netip.AddrFrom16([16]byte(m.Data[8:]))
	case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO:
		d.packetInfo(m.Data)
	}
}

// fastOpen connects by a SYN that has data and no cookie (TCP_FASTOPEN_NO_COOKIE, linux/tcp.h). A
// listener that is not asked to take such data acknowledges the SYN alone, and the data is sent
// again.
func fastOpen(fd int, data []byte, to unix.Sockaddr) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE, 1); err != nil {
		return fmt.Errorf("TCP_FASTOPEN_NO_COOKIE: %w", err)
	}
	n, err := unix.SendmsgN(fd, data, nil, to, unix.MSG_FASTOPEN)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	return err
}

// markProxys marks what the socket sends as a proxy's own.
func markProxys(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, pfconf.ProxyMark)
}

// bindDevice binds the socket to the interface that has the address (SO_BINDTODEVICE, socket(7)).
func bindDevice(fd int, a netip.Addr) error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range all {
		addresses, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, has := range addresses {
			if p, err := netip.ParsePrefix(has.String()); err == nil && p.Addr() == a {
				return unix.BindToDevice(fd, i.Name)
			}
		}
	}
	return fmt.Errorf("no interface has the address: %w", unix.ENODEV)
}

// setSegment has the kernel cut what is sent into datagrams of so many bytes, as late as it can
// (UDP_SEGMENT, udp(7)); 0 ends that.
func setSegment(fd, size int) error {
	return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, size)
}

// originalDst asks conntrack whom the connection of a redirected socket was meant for
// (net/netfilter/nf_conntrack_proto.c, getorigdst and ipv6_getorigdst). IP6T_SO_ORIGINAL_DST has
// the number of SO_ORIGINAL_DST. The structures in which golang.org/x/sys/unix takes the answers
// are others of the same beginning.
func originalDst(fd, family int) (netip.AddrPort, error) {
	if family == unix.AF_INET {
		m, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("SO_ORIGINAL_DST: %w", err)
		}
		b := m.Multiaddr // struct sockaddr_in: family, port, address
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), binary.BigEndian.Uint16(b[2:])), nil
	}
	m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("IP6T_SO_ORIGINAL_DST: %w", err)
	}
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], m.Addr.Port) // as it stands in memory: in network order
	return netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), binary.BigEndian.Uint16(port[:])), nil
}

// filterICMP lets only messages of one type come to a raw ICMP socket. The
// filters have a bit set for each type that is blocked: 32 bits for ICMP (raw(7)),
// 256 for ICMPv6 (RFC 3542, 3.2; Linux has its bits the other way round from
// the BSDs, uapi/linux/icmpv6.h).
func filterICMP(fd, family int, typ uint8) error {
	if family == unix.AF_INET {
		const icmpFilter = 1 // ICMP_FILTER, uapi/linux/icmp.h
		return unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, int(int32(^(uint32(1) << typ))))
	}
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[typ>>5] &^= 1 << (typ & 31)
	const icmpv6Filter = 1 // ICMPV6_FILTER, uapi/linux/icmpv6.h
	return unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, icmpv6Filter, &f)
}

// askErrors has the kernel keep the ICMP errors that concern the socket
// (IP_RECVERR, ip(7)), and reports whether it does.
func askErrors(fd, family int) bool {
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1) == nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1) == nil
}

// readErrors takes the socket's error queue, each error as one line, at most
// maxErrors.
func readErrors(fd int) []string {
	var texts []string
	var data [1]byte
	var oob [256]byte
	for len(texts) < maxErrors {
		_, oobn, _, _, err := unix.Recvmsg(fd, data[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			break
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			break
		}
		for _, m := range messages {
			if m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR ||
				m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR {
				texts = append(texts, errorText(m.Data))
			}
		}
	}
	return texts
}

// errorText reads a struct sock_extended_err with the sender's socket address
// behind it (uapi/linux/errqueue.h).
func errorText(b []byte) string {
	if len(b) < 16 {
		return fmt.Sprintf("error of %d bytes in the error queue", len(b))
	}
	errno := syscall.Errno(binary.NativeEndian.Uint32(b))
	origin, typ, code := b[4], b[5], b[6]
	var what string
	switch origin {
	case unix.SO_EE_ORIGIN_ICMP:
		what = "ICMP"
	case unix.SO_EE_ORIGIN_ICMP6:
		what = "ICMPv6"
	default:
		return fmt.Sprintf("own kernel: %v", errno)
	}
	return fmt.Sprintf("%s type %d code %d from %v: %v", what, typ, code, offender(b[16:]), errno)
}

// offender is the address behind a struct sock_extended_err (SO_EE_OFFENDER).
func offender(b []byte) netip.Addr {
	if len(b) < 2 {
		return netip.Addr{}
	}
	switch f := binary.NativeEndian.Uint16(b); {
	case f == unix.AF_INET && len(b) >= 8:
		return netip.AddrFrom4([4]byte(b[4:]))
	case f == unix.AF_INET6 && len(b) >= 24:
		return netip.AddrFrom16([16]byte(b[8:]))
	}
	return netip.Addr{}
}

// withoutRight does something on a thread that lacks the capabilities by which a socket may be made
// transparent (net/ipv4/ip_sockglue.c), for as long as it takes.
func withoutRight(do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var has [2]unix.CapUserData
	if err := unix.Capget(&header, &has[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	less := has
	less[0].Effective &^= 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	if err := unix.Capset(&header, &less[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	err := do()
	if back := unix.Capset(&header, &has[0]); back != nil {
		return errors.Join(err, fmt.Errorf("capset back: %w", back))
	}
	return err
}

// accept takes a connection, non-blocking and not inherited.
func accept(fd int) (int, unix.Sockaddr, error) {
	return unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
}

// newSocket makes a non-blocking socket that programs started later do not
// inherit.
func newSocket(family, typ, proto int) (int, error) {
	return unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
}
