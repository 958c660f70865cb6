package twin

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// found is a socket with what it is known by in /proc/PID/fd.
type found struct {
	BoundSocket
	inode uint64
}

// protocols are those of sockets that are read, with their files below /proc/net, the module that
// lists them by netlink, and the state in which they wait: LISTEN, or CLOSE for datagrams.
var protocols = []struct {
	name   string
	number byte
	state  uint8
	lister module
}{{"tcp", unix.IPPROTO_TCP, 10, tcpDiag}, {"udp", unix.IPPROTO_UDP, 7, udpDiag}}

// readSockets reads the TCP sockets that listen and the UDP sockets that take datagrams from
// anyone. As root it asks each for its options too, through a file descriptor of its own for the
// same socket.
func (d *Dump) readSockets(ctx context.Context) error {
	var all []found
	for _, p := range protocols {
		listed, err := netlinkHas(unix.NETLINK_SOCK_DIAG)
		if err == nil && listed {
			listed, err = p.lister.there()
		}
		if err != nil {
			return err
		}
		for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
			if family == unix.AF_INET6 && !hasIPv6() {
				continue
			}
			var some []found
			if listed {
				some, err = diagSockets(ctx, family, p.number, p.state, p.name)
			}
			if !listed || errors.Is(err, unix.ENOENT) { // ENOENT: the kernel has no such list
				some, err = procSockets(family, p.state, p.name)
			}
			if err != nil {
				return fmt.Errorf("list of %s sockets: %w", p.name, err)
			}
			all = append(all, some...)
		}
	}
	askOwners(all)
	sortStable(all, func(a, b found) int {
		return cmp.Or(strings.Compare(a.Proto, b.Proto), cmp.Compare(a.Local.Port(), b.Local.Port()),
			a.Local.Addr().Compare(b.Local.Addr()))
	})
	for _, s := range all {
		d.Sockets = append(d.Sockets, s.BoundSocket)
	}
	return nil
}

// Sizes and attributes of linux/inet_diag.h.
const (
	inetDiagReqSize = 56 // struct inet_diag_req_v2: family u8, protocol u8, ext u8, pad u8, states u32, id[48]
	// struct inet_diag_msg: family, state, timer, retrans u8, id[48], expires, rqueue, wqueue, uid,
	// inode u32
	inetDiagMsgSize  = 72
	inetDiagV6Only   = 11 // INET_DIAG_SKV6ONLY: u8
	inetDiagMark     = 15 // INET_DIAG_MARK: u32, for CAP_NET_ADMIN
	inetDiagSockOpts = 22 // INET_DIAG_SOCKOPT: struct inet_diag_sockopt, Linux 5.10
)

// The bits of the first byte of struct inet_diag_sockopt are recverr, is_icsk, freebind, hdrincl,
// mc_loop, transparent, mc_all, nodefrag: C has the first at the low end of the byte on
// little-endian systems and at the high end on big-endian ones.
func sockOptBit(number int, big bool) byte {
	if big {
		return 0x80 >> number
	}
	return 1 << number
}

// diagSockets lists sockets by netlink.
func diagSockets(ctx context.Context, family, protocol, state byte, name string) ([]found, error) {
	c, err := dial(unix.NETLINK_SOCK_DIAG, 0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	request := make([]byte, inetDiagReqSize)
	request[0], request[1] = family, protocol
	binary.NativeEndian.PutUint32(request[4:], 1<<state)
	answers, err := dump(ctx, c, unix.SOCK_DIAG_BY_FAMILY, request)
	if err != nil {
		return nil, err
	}
	var all []found
	for _, m := range answers {
		f, err := parseDiag(m.Data, name, bigEndian)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// parseDiag reads a struct inet_diag_msg with its attributes. big reports whether the kernel's
// bit-fields are those of a big-endian system.
func parseDiag(b []byte, name string, big bool) (found, error) {
	about, err := split(b, inetDiagMsgSize)
	if err != nil {
		return found{}, err
	}
	// id: sport be16, dport be16, src[16], dst[16], interface u32, cookie u64
	address := netip.AddrFrom16([16]byte(b[8:24]))
	if b[0] == unix.AF_INET {
		address = netip.AddrFrom4([4]byte(b[8:12]))
	}
	f := found{BoundSocket: BoundSocket{
		Proto: name, Local: netip.AddrPortFrom(address, binary.BigEndian.Uint16(b[4:])),
		V6Only: host32(about.get(inetDiagV6Only)) != 0,
		Index:  int(host32(b[40:44])), Mark: host32(about.get(inetDiagMark)), UID: host32(b[64:68]),
	}, inode: uint64(host32(b[68:72]))}
	if options := about.get(inetDiagSockOpts); len(options) > 0 {
		f.FreeBind = options[0]&sockOptBit(2, big) != 0
		f.Transparent = options[0]&sockOptBit(5, big) != 0
	}
	return f, nil
}

// procSockets lists sockets by /proc/net/tcp and the like, which has less of them.
func procSockets(family, state byte, name string) ([]found, error) {
	if family == unix.AF_INET6 {
		name += "6"
	}
	table, err := procNet(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return parseProcSockets(table, state, strings.TrimSuffix(name, "6"))
}

// parseProcSockets reads lines "sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout
// inode …". An address is of words in native order.
func parseProcSockets(table []byte, state byte, name string) ([]found, error) {
	var all []found
	first := true
	for line := range strings.Lines(string(table)) {
		if first {
			first = false
			continue
		}
		f := strings.Fields(line)
		if len(f) < 10 {
			return nil, fmt.Errorf("a line of %d fields", len(f))
		}
		words, port, _ := strings.Cut(f[1], ":")
		b, err1 := hex.DecodeString(words)
		p, err2 := strconv.ParseUint(port, 16, 16)
		st, err3 := strconv.ParseUint(f[3], 16, 8)
		uid, err4 := strconv.ParseUint(f[7], 10, 32)
		inode, err5 := strconv.ParseUint(f[9], 10, 64)
		if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
			return nil, err
		}
		if byte(st) != state {
			continue
		}
		if len(b)%4 == 0 {
			for i := 0; i < len(b); i += 4 {
				binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
			}
		}
		address, ok := netip.AddrFromSlice(b)
		if !ok {
			return nil, fmt.Errorf("an address of %d bytes", len(b))
		}
		all = append(all, found{BoundSocket: BoundSocket{Proto: name, Local: netip.AddrPortFrom(address, uint16(p)),
			UID: uint32(uid)}, inode: inode})
	}
	return all, nil
}

// askOwners finds the processes that have the sockets and asks the sockets for their options. A
// socket whose process may not be looked into stays without.
func askOwners(all []found) {
	wanted := map[string]*found{}
	for i := range all {
		if all[i].inode != 0 {
			wanted[fmt.Sprintf("socket:[%d]", all[i].inode)] = &all[i]
		}
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, p := range processes {
		if len(wanted) == 0 {
			return
		}
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		dir := "/proc/" + p.Name() + "/fd/"
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // it ended, or is another user's
		}
		for _, fd := range fds {
			link, err := os.Readlink(dir + fd.Name())
			if err != nil || wanted[link] == nil {
				continue
			}
			number, err := strconv.Atoi(fd.Name())
			if err != nil {
				continue
			}
			s := wanted[link]
			if comm, err := os.ReadFile("/proc/" + p.Name() + "/comm"); err == nil {
				s.Comm = strings.TrimSpace(string(comm))
			}
			gid, err := fileGroup(p.Name())
			if err != nil {
				continue
			}
			if s.options(pid, number) == nil {
				s.GID, s.OptionsKnown = gid, true
				delete(wanted, link)
			}
		}
	}
}

// fileGroup is the group that a process opens files with, and sockets: the last of "Gid:" in its
// status.
func fileGroup(pid string) (uint32, error) {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 5 && f[0] == "Gid:" {
			gid, err := strconv.ParseUint(f[4], 10, 32)
			return uint32(gid), err
		}
	}
	return 0, errors.New("no group in the status of a process")
}

// options asks the socket behind another process's file descriptor.
func (s *found) options(pid, number int) error {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, number, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The process may have closed its socket and opened something else meanwhile.
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if uint64(stat.Ino) != s.inode || stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errChanges
	}
	var failed error
	ask := func(level, option int) int {
		v, err := unix.GetsockoptInt(fd, level, option)
		if err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
			failed = errors.Join(failed, err)
		}
		return v
	}
	s.ReuseAddr = ask(unix.SOL_SOCKET, unix.SO_REUSEADDR) != 0
	s.ReusePort = ask(unix.SOL_SOCKET, unix.SO_REUSEPORT) != 0
	s.Mark = uint32(ask(unix.SOL_SOCKET, unix.SO_MARK))
	s.Index = ask(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	// IPv4's options hold for an IPv6 socket that takes IPv4, too.
	s.Transparent = ask(unix.SOL_IP, unix.IP_TRANSPARENT) != 0
	s.FreeBind = ask(unix.SOL_IP, unix.IP_FREEBIND) != 0
	s.OrigDst = ask(unix.SOL_IP, unix.IP_RECVORIGDSTADDR) != 0
	if s.Local.Addr().Is6() {
		s.V6Only = ask(unix.SOL_IPV6, unix.IPV6_V6ONLY) != 0
		s.OrigDst6 = ask(unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR) != 0
	}
	return failed
}
