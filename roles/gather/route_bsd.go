//go:build openbsd || freebsd

package gather

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/route"
	"golang.org/x/sys/unix"
)

// routePatience bounds how long the kernel may take to answer on a routing socket.
const routePatience = 10 * time.Second

// routeSeq tells the questions of this process apart.
var routeSeq atomic.Int32

// routeTo asks the kernel for the route to an address, through a routing socket (route(4)) as
// route(8) does, and returns it in that program's words. To run the program for each address took a
// slow host longer than all else that it is asked.
func routeTo(to netip.Addr) (string, error) {
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(unix.AF_ROUTE, unix.SOCK_RAW, family)
	if err != nil {
		return "", os.NewSyscallError("socket(AF_ROUTE)", err)
	}
	defer unix.Close(fd)
	patience := unix.NsecToTimeval(int64(routePatience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return "", os.NewSyscallError("SO_RCVTIMEO", err)
	}
	ask := route.RouteMessage{
		Type: unix.RTM_GET, Flags: unix.RTF_UP | unix.RTF_HOST, ID: uintptr(os.Getpid()), Seq: int(routeSeq.Add(1)),
		// that the interface is told
		Addrs: []route.Addr{unix.RTAX_DST: routeAddr(to), unix.RTAX_IFP: &route.LinkAddr{}},
	}
	question, err := ask.Marshal()
	if err == nil {
		err = inOwnTable(question)
	}
	if err != nil {
		return "", err
	}
	switch _, err := unix.Write(fd, question); {
	case errors.Is(err, unix.ESRCH):
		return "not in table", nil
	case err != nil:
		return "", os.NewSyscallError("RTM_GET", err)
	}
	// The socket hears of all that happens to routes besides.
	buf := make([]byte, 2048)
	for begin := time.Now(); time.Since(begin) < routePatience; {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", os.NewSyscallError("RTM_GET", err)
		}
		all, err := route.ParseRIB(route.RIBTypeRoute, buf[:n])
		if err != nil {
			continue // not of a kind that is understood: the answer is
		}
		for _, m := range all {
			if r, ok := m.(*route.RouteMessage); ok && r.Type == unix.RTM_GET && r.ID == ask.ID && r.Seq == ask.Seq {
				return routeText(to, r), nil
			}
		}
	}
	return "", errors.New("RTM_GET: no answer")
}

func routeAddr(a netip.Addr) route.Addr {
	if a.Is4() {
		return &route.Inet4Addr{IP: a.As4()}
	}
	return &route.Inet6Addr{IP: a.As16()}
}

// routeText is a route as route(8) shows it.
func routeText(to netip.Addr, r *route.RouteMessage) string {
	lines := []string{fmt.Sprintf("   route to: %v", to)}
	add := func(name string, n int) {
		if n < len(r.Addrs) {
			if text := routeAddrText(r.Addrs[n]); text != "" {
				lines = append(lines, fmt.Sprintf("%11s: %s", name, text))
			}
		}
	}
	add("destination", unix.RTAX_DST)
	add("mask", unix.RTAX_NETMASK)
	if r.Flags&unix.RTF_GATEWAY != 0 {
		add("gateway", unix.RTAX_GATEWAY)
	}
	if nic, err := net.InterfaceByIndex(r.Index); err == nil {
		lines = append(lines, "  interface: "+nic.Name)
	}
	add("if address", unix.RTAX_IFA)
	var flags []string
	for bit := 1; bit <= 1<<30; bit <<= 1 {
		if name := routeFlags[bit]; r.Flags&bit != 0 && name != "" {
			flags = append(flags, name)
		}
	}
	lines = append(lines, "      flags: <"+strings.Join(flags, ",")+">")
	for _, s := range r.Sys() {
		if m, ok := s.(*route.RouteMetrics); ok && m.PathMTU != 0 {
			lines = append(lines, fmt.Sprintf("        mtu: %d", m.PathMTU))
		}
	}
	return strings.Join(lines, "\n")
}

func routeAddrText(a route.Addr) string {
	switch a := a.(type) {
	case *route.Inet4Addr:
		return netip.AddrFrom4(a.IP).String()
	case *route.Inet6Addr:
		return netip.AddrFrom16(a.IP).String()
	}
	return ""
}
