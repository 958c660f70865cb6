//go:build openbsd || freebsd

package gather

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// tableTries: the tables are read in one piece.
const tableTries = 1

// countersTakeLong: they take a program, and the beginning of a run does not wait for it.
const countersTakeLong = true

// say runs a program and gives what it prints.
func (o Options) say(ctx context.Context, argv ...string) (string, error) {
	if o.Run == nil {
		return "", errors.New("no programs may be run")
	}
	r, err := o.Run(ctx, program.Command{Argv: argv})
	if err == nil && r.Status != 0 {
		err = &program.Failure{Argv: argv, Status: r.Status, Stderr: r.Stderr}
	} else if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return strings.TrimRight(r.Stdout, "\n"), err
}

func readCounters(ctx context.Context, o Options) (counters, error) {
	out, err := o.say(ctx, "netstat", "-s")
	if err != nil {
		return nil, err
	}
	return sync.OnceValues(func() (map[string]int64, error) {
		all := map[string]int64{}
		parseStatistics(out, all)
		return all, nil
	}), nil
}

func readSockets(ctx context.Context, o Options, _ string) ([]evidence.SocketEntry, error) {
	var all []evidence.SocketEntry
	for _, family := range pfconf.Families {
		out, err := o.say(ctx, "netstat", "-an", "-f", family.String())
		if err == nil {
			err = parseNetstat(out, func(s evidence.SocketEntry) { all = append(all, s) })
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// tables is what readSockets reads in one go.
func tables(a evidence.About) []string { return []string{evidence.ProtoRaw} }

// readFilters asks the host's packet filters for their rules, with what these have counted, and
// whether they are on: of pf those of the main ruleset, which call the anchors and whose numbers
// are in pf's log, of ipfw all but this program's own.
func readFilters(o Options) func(context.Context) (asking, error) {
	return func(ctx context.Context) (asking, error) {
		var q asking
		ask := func(argv ...string) {
			text, err := o.say(ctx, argv...)
			if err == nil && text == "" {
				text = nobodys
			}
			q.answer(strings.Join(argv, " "), text, err)
		}
		if _, err := os.Stat("/dev/pf"); err == nil { // else it is not loaded
			ask("pfctl", "-s", "info")
			if runtime.GOOS == "freebsd" {
				ask("pfctl", "-vv", "-s", "nat")
			}
			ask("pfctl", "-vv", "-s", "rules")
		}
		if misnamed6 {
			ask("sysctl", "net.inet6.ip6.forwarding")
		}
		if _, err := unix.SysctlUint32("net.inet.ip.fw.enable"); err == nil {
			text, err := o.say(ctx, "ipfw", "-a", "list")
			q.answer("ipfw -a list | grep -v '// regress-'", without(text, " // regress-"), err)
		}
		return q, nil
	}
}

// without leaves out the lines that have the words.
func without(text, words string) string {
	lines := strings.Split(text, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, words) }), "\n")
}

// misnamed6: x/sys/unix asks OpenBSD for another sysctl than one of IPv6's that it is told: it has
// 17, UDP's number, for "ip6" and 30 for "icmp6" (zsysctl_openbsd_amd64.go), so
// "net.inet6.ip6.forwarding" is the first of UDP's. sysctl(8) knows them.
const misnamed6 = runtime.GOOS == "openbsd"

// sysctls of one family that decide what happens to diverted packets. Each kernel has some of them.
var sysctls = map[pfconf.Family][]string{
	pfconf.Inet: {
		"net.inet.ip.forwarding", "net.inet.divert.recvspace", "net.inet.ip.fw.enable", "net.inet.ip.fw.one_pass",
		"net.inet.ip.check_interface", "net.inet.tcp.blackhole", "net.inet.udp.blackhole", "net.inet.icmp.icmplim",
	},
	pfconf.Inet6: {
		"net.inet6.ip6.forwarding", "net.inet6.divert.recvspace", "net.inet6.ip6.fw.enable", "net.inet.ip.fw.one_pass",
		"net.inet6.ip6.fw.deny_unknown_exthdrs", "net.inet.tcp.blackhole", "net.inet.udp.blackhole",
		"net.inet6.icmp6.errppslimit",
	},
}

// answers asks for the routes between the cell's addresses, and for settings.
func (h *Host) answers(ctx context.Context, a evidence.About) ([]evidence.Answer, []error) {
	q := &asking{}
	routes := []netip.Addr{a.Fake, a.Local}
	if !h.opt.Remote {
		routes[1] = a.Remote
	}
	for _, to := range routes {
		text, err := routeTo(to)
		q.answer(fmt.Sprintf("route -n get -%v %v", a.Family(), to), text, err)
	}
	if nic := h.opt.Interface; nic != "" {
		text, err := interfaceText(nic)
		q.answer("ifconfig "+nic, text, err)
	}
	owned, err := hasAddress(a.Fake)
	q.answer(fmt.Sprintf("ifconfig -a | grep %v", a.Fake), owned, err)
	for _, name := range sysctls[a.Family()] {
		if misnamed6 && strings.HasPrefix(name, "net.inet6.") {
			continue
		}
		value, err := unix.SysctlUint32(name)
		// FreeBSD, and OpenBSD
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOPROTOOPT) {
			continue
		}
		q.answer("sysctl "+name, fmt.Sprintf("%s=%d", name, value), err)
	}
	h.askFilters(ctx, q)
	return q.answers, q.errs
}

// interfaceText says of an interface what matters. That and settings are not asked through
// programs: with many cells these would take too long.
func interfaceText(name string) (string, error) {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return "", err
	}
	list, err := nic.Addrs()
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("%s: <%v> mtu %d", nic.Name, nic.Flags, nic.MTU)
	for _, a := range list {
		text += "\n" + a.String()
	}
	return text, nil
}

// hasAddress names the interface that has the address.
func hasAddress(a netip.Addr) (string, error) {
	nics, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, nic := range nics {
		list, err := nic.Addrs()
		if err != nil {
			return "", err
		}
		for _, x := range list {
			if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().Unmap() == a {
				return fmt.Sprintf("%s: %v", nic.Name, p), nil
			}
		}
	}
	return nobodys, nil
}
