package twin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// open is what a socket of the twin's is made with.
type open struct {
	proto       string // tcp, udp
	six         bool
	local       netip.AddrPort // invalid: not bound
	device      string
	mark        uint32
	uid, gid    uint32
	transparent bool
	freeBind    bool
	reuseAddr   bool
	reusePort   bool
	v6Only      bool
}

// asOwner runs f with a file system user and group, which sockets made meanwhile belong to. The
// thread is one of its own (Netns.Do). A user that the namespace does not have stays away: the
// sockets are then this process's.
func asOwner(uid, gid uint32, f func() error) error {
	u, err := unix.SetfsuidRetUid(int(uid))
	if err != nil {
		return err
	}
	g, err := unix.SetfsgidRetGid(int(gid))
	if err != nil {
		return err
	}
	defer func() {
		_, _ = unix.SetfsuidRetUid(u)
		_, _ = unix.SetfsgidRetGid(g)
	}()
	return f()
}

// socket opens a socket that does not block. It belongs to the namespace of the calling thread.
func (o open) socket() (fd int, err error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if o.six {
		family = unix.AF_INET6
	}
	if o.proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	err = asOwner(o.uid, o.gid, func() error {
		fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := o.options(fd); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	if o.local.IsValid() {
		if err := unix.Bind(fd, sockaddr(o.local, o.six)); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("bind to %v: %w", o.local, err)
		}
	}
	return fd, nil
}

func (o open) options(fd int) error {
	one := func(is bool, level, option, value int, name string) error {
		if !is {
			return nil
		}
		if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		return nil
	}
	var device error
	if o.device != "" {
		if device = unix.BindToDevice(fd, o.device); device != nil {
			device = fmt.Errorf("bind to device %s: %w", o.device, device)
		}
	}
	only := 0
	if o.v6Only {
		only = 1
	}
	udp := o.proto == "udp"
	return errors.Join(device,
		one(o.mark != 0, unix.SOL_SOCKET, unix.SO_MARK, int(o.mark), "SO_MARK"),
		one(o.reuseAddr, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"),
		one(o.reusePort, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"),
		one(o.transparent && !o.six, unix.SOL_IP, unix.IP_TRANSPARENT, 1, "IP_TRANSPARENT"),
		one(o.transparent && o.six, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1, "IPV6_TRANSPARENT"),
		one(o.freeBind && !o.six, unix.SOL_IP, unix.IP_FREEBIND, 1, "IP_FREEBIND"),
		one(o.freeBind && o.six, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1, "IPV6_FREEBIND"),
		one(o.six, unix.SOL_IPV6, unix.IPV6_V6ONLY, only, "IPV6_V6ONLY"),
		// A socket of IPv6 that has IPv4 too gets IPv4's control messages for it.
		one(udp && !(o.six && o.v6Only), unix.SOL_IP, unix.IP_PKTINFO, 1, "IP_PKTINFO"),
		one(udp && !(o.six && o.v6Only), unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1, "IP_RECVORIGDSTADDR"),
		one(udp && o.six, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO"),
		one(udp && o.six, unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, 1, "IPV6_RECVORIGDSTADDR"),
	)
}

// discard closes a connection with RST.
func discard(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// sockaddr is an address for a socket of a family: one of IPv4 is mapped for a socket of IPv6.
func sockaddr(a netip.AddrPort, six bool) unix.Sockaddr {
	if six {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().Unmap().As4()}
}

// addrPort is the address of a sockaddr, with IPv4 as itself.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// originalDst asks SO_ORIGINAL_DST, whose number is that of IPv6 also: conntrack's destination of
// the connection before it was rewritten. Invalid where conntrack does not know it.
func originalDst(fd int, six bool) netip.AddrPort {
	level := uintptr(unix.SOL_IP)
	if six {
		level = unix.SOL_IPV6
	}
	var b [unix.SizeofSockaddrInet6]byte
	n := uint32(len(b))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), level, 80, uintptr(unsafe.Pointer(&b[0])),
		uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return netip.AddrPort{}
	}
	return rawSockaddr(b[:n])
}

// rawSockaddr reads a struct sockaddr_in or sockaddr_in6.
func rawSockaddr(b []byte) netip.AddrPort {
	if len(b) < 8 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch binary.NativeEndian.Uint16(b) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case unix.AF_INET6:
		if len(b) >= 24 {
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), port)
		}
	}
	return netip.AddrPort{}
}

// arrival is what the control messages of a datagram say.
type arrival struct {
	header   netip.Addr     // destination in the header
	original netip.AddrPort // destination before it was given to a socket
}

func parseArrival(oob []byte) arrival {
	var a arrival
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return a
	}
	for _, m := range messages {
		switch {
		// struct in_pktinfo
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			a.header = netip.AddrFrom4([4]byte(m.Data[8:12]))
		// struct in6_pktinfo
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			a.header = netip.AddrFrom16([16]byte(m.Data[:16])).Unmap()
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_ORIGDSTADDR,
			m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_ORIGDSTADDR:
			a.original = rawSockaddr(m.Data)
		}
	}
	return a
}

// source is the control message that sends a datagram from an address.
func source(a netip.Addr, six bool) []byte {
	if six {
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
	}
	return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
}
