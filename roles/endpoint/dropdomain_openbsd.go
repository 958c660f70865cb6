package endpoint

import (
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// identMapping is struct tcp_ident_mapping of OpenBSD's netinet/tcp_var.h. The addresses are
// struct sockaddr_storage, whose alignment is that of 64 bits: 528 bytes on amd64, where the
// kernel takes no fewer.
type identMapping struct {
	foreign, local [32]uint64
	euid, ruid     int32
	domain         uint32
}

// tcpDropMIB is net.inet.tcp.drop: CTL_NET, PF_INET, IPPROTO_TCP, TCPCTL_DROP (sysctl(2)).
var tcpDropMIB = [...]int32{4, 2, 6, 19}

// dropInDomain does what tcpdrop(8) does, in the routing domain of this process.
// tcpdrop looks for the socket in routing domain 0 alone.
func dropInDomain(local, remote netip.AddrPort) (done bool, err error) {
	domain, err := unix.Getrtable()
	if err != nil {
		return false, os.NewSyscallError("getrtable", err)
	}
	if domain == 0 {
		return false, nil
	}
	m := identMapping{domain: uint32(domain)}
	putSockaddr(unsafe.Slice((*byte)(unsafe.Pointer(&m.foreign)), unsafe.Sizeof(m.foreign)), remote)
	putSockaddr(unsafe.Slice((*byte)(unsafe.Pointer(&m.local)), unsafe.Sizeof(m.local)), local)
	_, _, errno := syscall.Syscall6(syscall.SYS___SYSCTL, uintptr(unsafe.Pointer(&tcpDropMIB)), uintptr(len(tcpDropMIB)),
		0, 0, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m))
	switch errno {
	case 0:
		return true, nil
	case unix.ESRCH:
		return true, ErrNoSocket
	}
	return true, os.NewSyscallError("sysctl net.inet.tcp.drop", errno)
}
