package gather

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/rtnetlink"
)

// answers asks the kernel about addresses, routes and settings. Nothing is executed: the commands
// are those that ask the same.
func (h *Host) answers(ctx context.Context, a evidence.About) ([]evidence.Answer, []error) {
	q := &routeAsking{host: h, about: a, family: afOf(a.Family()), ip: "ip"}
	if a.Family() == pfconf.Inet6 {
		q.ip = "ip -6"
	}
	routes, err := rtnetlink.Dial()
	if err != nil {
		return nil, []error{err}
	}
	defer routes.Close()
	q.routes = routes
	q.links()
	q.owned()
	q.rules()
	if h.opt.Remote {
		q.table()
		if h.opt.Mark != 0 {
			q.get(a.Fake, a.Local, h.opt.Interface, h.opt.Mark)
		}
		q.get(a.Fake, a.Local, h.opt.Interface, 0)
		q.get(a.Local, netip.Addr{}, "", 0)
		q.arriving(a.Remote, a.Local)
	} else {
		q.get(a.Fake, a.Local, "", 0)
		q.get(a.Remote, a.Local, "", 0)
		q.arriving(a.Local, a.Fake)
	}
	q.sysctls()
	h.askFilters(ctx, &q.asking)
	return q.answers, q.errs
}

type routeAsking struct {
	asking
	host   *Host
	about  evidence.About
	routes *rtnetlink.Conn
	family uint8
	ip     string // with the family's flag
	names  map[int]string
}

// links learns the interfaces' names and tells of the one towards the other host.
func (q *routeAsking) links() {
	list, err := q.routes.Links()
	if err != nil {
		q.answer("ip link", "", err)
		return
	}
	q.names = make(map[int]string, len(list))
	for _, l := range list {
		q.names[l.Index] = l.Name
		if l.Name == q.host.opt.Interface {
			state := "DOWN"
			if l.Flags&unix.IFF_UP != 0 {
				state = "UP"
			}
			kind := cmp.Or(l.Kind, "device")
			q.answer("ip link show dev "+l.Name, fmt.Sprintf("%s: %s mtu %d %s", l.Name, state, l.MTU, kind), nil)
		}
	}
}

// owned asks whether FAKE is configured here.
func (q *routeAsking) owned() {
	command := fmt.Sprintf("%s addr show to %v", q.ip, q.about.Fake)
	list, err := q.routes.Addresses(q.family)
	text := nobodys
	for _, x := range list {
		if x.Prefix.Addr() == q.about.Fake {
			text = fmt.Sprintf("%v dev %s", x.Prefix, q.names[x.Link])
		}
	}
	q.answer(command, text, err)
}

// rules lists the policy rules, as ip(8) does: in the order in which the kernel has them.
func (q *routeAsking) rules() {
	list, err := q.routes.Rules(q.family)
	var b strings.Builder
	for _, r := range list {
		fmt.Fprintln(&b, r)
	}
	q.answer(q.ip+" rule", strings.TrimRight(b.String(), "\n"), err)
}

// table lists the routing table of diverted packets.
func (q *routeAsking) table() {
	if q.host.opt.Table == 0 {
		return
	}
	command := fmt.Sprintf("%s route show table %d", q.ip, q.host.opt.Table)
	list, err := q.routes.Routes(q.family, q.host.opt.Table)
	text := nobodys
	if len(list) > 0 {
		var lines []string
		for _, r := range list {
			lines = append(lines, q.routeText(r))
		}
		text = strings.Join(lines, "\n")
	}
	q.answer(command, text, err)
}

// arriving asks what happens to a packet that comes in by the interface towards the other host.
func (q *routeAsking) arriving(to, from netip.Addr) {
	if nic := q.host.opt.Interface; nic != "" {
		q.get(to, from, nic, 0)
	}
}

// get asks for the route of a packet, with a mark or without. The kernel's refusal is an answer,
// too: it is what happens to the packet.
func (q *routeAsking) get(to, from netip.Addr, iif string, mark uint32) {
	command := fmt.Sprintf("%s route get %v", q.ip, to)
	packet := rtnetlink.RouteQuery{Src: from, Mark: mark}
	if from.IsValid() {
		command += fmt.Sprintf(" from %v", from)
	}
	if iif != "" {
		command += " iif " + iif
		for index, name := range q.names {
			if name == iif {
				packet.Incoming = index
			}
		}
		if packet.Incoming == 0 {
			q.answer(command, "", fmt.Errorf("no interface %q", iif))
			return
		}
	}
	if mark != 0 {
		command += fmt.Sprintf(" mark 0x%x", mark)
	}
	route, err := q.routes.RouteTo(to, packet)
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		q.answer(command, "RTNETLINK answers: "+sentence(errno), nil)
	case err != nil:
		q.answer(command, "", err)
	default:
		q.answer(command, q.routeText(route), nil)
	}
}

// sentence is the system error as strerror(3) has it: with a capital letter.
func sentence(e syscall.Errno) string {
	s := e.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}

// routeText is a route as ip(8) shows it.
func (q *routeAsking) routeText(r rtnetlink.Route) string {
	var b strings.Builder
	if r.Type != unix.RTN_UNICAST && r.Type != 0 {
		b.WriteString(rtnetlink.TypeName(r.Type) + " ")
	}
	switch {
	case r.Dst.Bits() == 0:
		b.WriteString("default")
	case r.Dst.IsSingleIP():
		b.WriteString(r.Dst.Addr().String())
	default:
		b.WriteString(r.Dst.String())
	}
	if r.Via.IsValid() {
		b.WriteString(" via " + r.Via.String())
	}
	if name := q.names[r.Link]; name != "" {
		b.WriteString(" dev " + name)
	}
	if r.Table != 0 {
		b.WriteString(" table " + rtnetlink.TableName(r.Table))
	}
	if r.Src.IsValid() {
		b.WriteString(" src " + r.Src.String())
	}
	if r.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	return b.String()
}

// afOf returns the kernel's number of the family.
func afOf(f pfconf.Family) uint8 {
	if f == pfconf.Inet6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// sysctls of one family that decide what happens to diverted packets; NIC stands for the
// interface. "net.bridge" is there when its module is.
var sysctls = map[pfconf.Family][]string{
	pfconf.Inet: {
		"net.ipv4.ip_forward", "net.ipv4.ip_early_demux", "net.ipv4.ip_nonlocal_bind", "net.ipv4.tcp_timestamps",
		"net.ipv4.conf.all.rp_filter", "net.ipv4.conf.NIC.rp_filter",
		"net.ipv4.conf.all.src_valid_mark", "net.ipv4.conf.NIC.src_valid_mark",
		"net.ipv4.conf.all.accept_local", "net.ipv4.conf.NIC.accept_local",
		"net.ipv4.conf.NIC.forwarding", "net.ipv4.conf.NIC.route_localnet",
		"net.ipv4.icmp_echo_ignore_all", "net.bridge.bridge-nf-call-iptables",
	},
	pfconf.Inet6: {
		"net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.NIC.disable_ipv6", "net.ipv6.conf.lo.disable_ipv6",
		"net.ipv6.conf.all.forwarding", "net.ipv6.conf.NIC.forwarding", "net.ipv6.ip_nonlocal_bind",
		"net.ipv4.ip_early_demux", "net.ipv4.tcp_timestamps",
		"net.ipv6.icmp.echo_ignore_all", "net.bridge.bridge-nf-call-ip6tables",
	},
}

// sysctls asks for the settings that the kernel has.
func (q *routeAsking) sysctls() {
	for _, name := range sysctls[q.about.Family()] {
		path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
		if strings.Contains(name, "NIC") {
			nic := q.host.opt.Interface
			if nic == "" {
				continue
			}
			path = strings.Replace(path, "NIC", nic, 1) // which may have dots
			// sysctl(8) takes '/' for a dot in a name.
			name = strings.Replace(name, "NIC", strings.ReplaceAll(nic, ".", "/"), 1)
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		q.answer("sysctl "+name, name+" = "+strings.TrimSpace(string(b)), err)
	}
}
