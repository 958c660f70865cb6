package twin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/netlink"
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

// listInet lists the sockets of a protocol by netlink that are in one of the states.
func listInet(ctx context.Context, family, protocol uint8, states ...uint8) ([]netlink.InetSocket, error) {
	c, err := netlink.Open(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for range dumpTries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		all, err := c.ListInet(family, protocol, states...)
		if !errors.Is(err, netlink.ErrInterrupted) {
			return all, err
		}
	}
	return nil, errChanges
}

// diagSockets lists sockets by netlink.
func diagSockets(ctx context.Context, family, protocol, state byte, name string) ([]found, error) {
	var all []found
	listed, err := listInet(ctx, family, protocol, state)
	for _, s := range listed {
		all = append(all, found{BoundSocket: BoundSocket{
			Proto: name, Local: s.Local, V6Only: s.Only6, Transparent: s.Transparent, FreeBind: s.FreeBind,
			Index: s.Interface, Mark: s.Mark, UID: s.UID,
		}, inode: uint64(s.Inode)})
	}
	return all, err
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
// inode …".
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
		local, err1 := netlink.ParseProcAddress(f[1])
		st, err2 := strconv.ParseUint(f[3], 16, 8)
		uid, err3 := strconv.ParseUint(f[7], 10, 32)
		inode, err4 := strconv.ParseUint(f[9], 10, 64)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return nil, err
		}
		if byte(st) != state {
			continue
		}
		all = append(all, found{BoundSocket: BoundSocket{Proto: name, Local: local, UID: uint32(uid)},
			inode: inode})
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
			uid, gid, err := fileOwner(p.Name())
			if err != nil {
				continue
			}
			if s.options(pid, number) == nil {
				// A daemon opens its listener as root and then becomes another user, as whom it
				// accepts and connects.
				s.UID, s.GID, s.OptionsKnown = uid, gid, true
				delete(wanted, link)
			}
		}
	}
}

// fileOwner is the user and the group that a process opens files with, and sockets: the last of
// "Uid:" and of "Gid:" in its status.
func fileOwner(pid string) (uid, gid uint32, err error) {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, 0, err
	}
	known := 0
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) != 5 || f[0] != "Uid:" && f[0] != "Gid:" {
			continue
		}
		id, err := strconv.ParseUint(f[4], 10, 32)
		if err != nil {
			return 0, 0, err
		}
		if known++; f[0] == "Uid:" {
			uid = uint32(id)
		} else {
			gid = uint32(id)
		}
	}
	if known != 2 {
		return 0, 0, errors.New("no user and group in the status of a process")
	}
	return uid, gid, nil
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
