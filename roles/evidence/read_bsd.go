//go:build openbsd || freebsd || darwin

package evidence

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// countersTakeLong: they take a program, and the beginning of a run does not wait for it.
const countersTakeLong = true

// say runs a program and gives what it prints, whatever its exit status.
func (o Options) say(ctx context.Context, argv ...string) (string, error) {
	if o.Run == nil {
		return "", errors.New("no programs may be run")
	}
	r, err := o.Run(ctx, program.Command{Argv: argv})
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return strings.TrimRight(r.Stdout+r.Stderr, "\n"), nil
}

func readCounters(ctx context.Context, o Options) (counters, error) {
	out, err := o.say(ctx, "netstat", "-s")
	if err != nil {
		return nil, err
	}
	return func() (map[string]int64, error) {
		all := map[string]int64{}
		parseStatistics(out, all)
		return all, nil
	}, nil
}

func readSockets(ctx context.Context, o Options, _ string) ([]Socket, error) {
	var all []Socket
	for _, family := range pfconf.Families {
		out, err := o.say(ctx, "netstat", "-an", "-f", family.String())
		if err == nil {
			err = parseNetstat(out, func(s Socket) { all = append(all, s) })
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// tables is what readSockets reads in one go.
func (a About) tables() []string { return []string{protoRaw} }

// readChains gives the main rules of pf, which call this program's anchor, and its status.
func readChains(o Options) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if _, err := os.Stat("/dev/pf"); err != nil {
			return nobodys, nil // not loaded
		}
		rules, err := o.say(ctx, "pfctl", "-s", "rules")
		if err != nil {
			return "", err
		}
		info, err := o.say(ctx, "pfctl", "-s", "info")
		return rules + "\n" + info, err
	}
}

// nobodys is the answer of a question whose list is empty.
const nobodys = "(none)"

// answers asks for the routes between the cell's addresses, and for settings.
func (h *Host) answers(ctx context.Context, a About) ([]Answer, []error) {
	q := &asking{}
	ask := func(argv ...string) {
		text, err := h.opt.say(ctx, argv...)
		q.answer(strings.Join(argv, " "), text, err)
	}
	filter, err := h.chains.Get(ctx)
	q.answer("pfctl -s rules -s info", filter, err)
	family := "-" + a.Family().String()
	routes := []netip.Addr{a.Fake, a.Local}
	if !h.opt.Remote {
		routes[1] = a.Remote
	}
	for _, to := range routes {
		ask("route", "-n", "get", family, to.String())
	}
	if nic := h.opt.Interface; nic != "" {
		text, err := interfaceText(nic)
		q.answer("ifconfig "+nic, text, err)
	}
	owned, err := hasAddress(a.Fake)
	q.answer(fmt.Sprintf("ifconfig -a | grep %v", a.Fake), owned, err)
	for _, name := range []string{"net.inet.ip.forwarding", "net.inet6.ip6.forwarding"} {
		value, err := unix.SysctlUint32(name)
		q.answer("sysctl "+name, fmt.Sprintf("%s=%d", name, value), err)
	}
	return q.answers, q.errs
}

// interfaceText says of an interface what matters. That and settings are not asked through programs:
// with many cells these would take too long.
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
