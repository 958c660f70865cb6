package agent

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

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/socket"
)

// checks are the findings about a host.
type checks []CheckItem

// ok notes that something is as it must be.
func (c *checks) ok(name, format string, args ...any) {
	*c = append(*c, CheckItem{Name: name, OK: true, Detail: fmt.Sprintf(format, args...)})
}

// warn notes what may be wrong and what can be done about it. It does not stop a run.
func (c *checks) warn(name, cure, format string, args ...any) {
	*c = append(*c, CheckItem{Name: name, OK: true, Warn: true, Detail: fmt.Sprintf(format, args...), Cure: cure})
}

// no notes what is wrong and the command that fixes it.
func (c *checks) no(name, cure, format string, args ...any) {
	*c = append(*c, CheckItem{Name: name, Detail: fmt.Sprintf(format, args...), Cure: cure})
}

// fail notes an error that kept a question from being answered, with its hint as the cure.
func (c *checks) fail(name string, err error) {
	f := ErrorOf(err)
	*c = append(*c, CheckItem{Name: name, Failed: true, Detail: f.Text, Cure: f.Hint})
}

// failed reports whether a question was not answered.
func (c checks) failed() bool {
	return slices.ContainsFunc(c, func(i CheckItem) bool { return i.Failed })
}

// unfit makes a fault of what is wrong with a host.
func unfit(items []CheckItem) error {
	var wrong, cures []string
	for _, i := range items {
		if i.OK {
			continue
		}
		wrong = append(wrong, i.Name+": "+i.Detail)
		if i.Cure != "" {
			cures = append(cures, i.Cure)
		}
	}
	if wrong == nil {
		return nil
	}
	return &script.Error{Code: script.CodeSetup, Text: strings.Join(wrong, "; "), Hint: strings.Join(cures, "; ")}
}

// check finds out whether the host can be LOCAL or REMOTE; begins tells that it will be made so at
// once. It changes nothing.
func (a *agent) check(ctx context.Context, s *script.Setup, begins bool) []CheckItem {
	var c checks
	if uid := os.Geteuid(); uid != 0 {
		c.no("privilege", "set SUDO to sudo or doas, for a user who may use it",
			"the agent runs as user %d, not as root", uid)
		return c // the rest could not be asked
	}
	c.ok("privilege", "root")
	if !a.opt.Ephemeral {
		a.checkJournals(ctx, &c)
	}
	c.addresses(s)
	c.domain(ctx, s, a.opt.Domain)
	if s.Remote {
		c.fakes(s)
		c.system(ctx, s, begins)
		if hasBeyond(s) && runtime.GOOS != "linux" && !begins {
			c.beyond(s, findBeyond(ctx, program.Exec, s, nicsOf(s)))
		}
		return c
	}
	c.answers(ctx, s)
	c.ownFilter(ctx, s)
	c.fakes(s)
	c.gateways(s)
	for _, r := range routesTo(s) {
		beyond := ofFamily(s.Beyond, pfconf.FamilyOf(r.via))
		third := r.dst.IsSingleIP() && r.dst.Addr() == beyond
		name := fmt.Sprintf("route to FAKE %v", r.dst)
		if third {
			name = fmt.Sprintf("route to the third host %v", beyond)
		}
		switch missing, err := r.plan(ctx, hostRoutes); {
		case err != nil:
			c.fail(name, err)
		case missing:
			c.ok(name, "none yet: the run adds one via %v and removes it", r.via)
		default:
			c.ok(name, "via %v", r.via)
			if third && !begins {
				c.hears(ctx, s, beyond)
			}
		}
	}
	return c
}

// checkJournals looks for what killed agents left, and for others at work.
func (a *agent) checkJournals(ctx context.Context, c *checks) {
	const name = "journals"
	left, err := Cleanup(ctx, a.stateDir(), true)
	if err != nil {
		c.fail(name, err)
		return
	}
	var notes []string
	for _, l := range left {
		switch {
		case l.Stale() && (a.hold == nil || l.PID != os.Getpid()):
			c.no(name, CleanUp+"; the next run does it too",
				"%s was killed and left %s", l, pfconf.Count(len(l.Steps), "change"))
			return
		case l.Alive && l.PID != os.Getpid():
			notes = append(notes, l.String()+" is at work")
		}
	}
	if notes == nil {
		notes = []string{"no killed run has left anything"}
	}
	c.ok(name, "%s", strings.Join(notes, "; "))
}

// addresses looks whether the host has the addresses that it is said to have.
func (c *checks) addresses(s *script.Setup) {
	for _, p := range s.Paths {
		name := fmt.Sprintf("%v address", pfconf.FamilyOf(p.Here))
		switch nic, err := interfaceOf(p.Here); {
		case err != nil:
			c.fail(name, err)
		case nic == "":
			c.no(name, fmt.Sprintf("correct %s, or give %v to an interface of that host", addressName(s, p), p.Here),
				"no interface of this host has %v", p.Here)
		default:
			c.ok(name, "%v on %s", p.Here, nic)
		}
	}
}

// addressName returns the variable of the orchestrator's environment that has the host's address.
func addressName(s *script.Setup, p script.Path) string {
	name := "LOCAL_ADDR"
	if s.Remote {
		name = "REMOTE_ADDR"
	}
	if p.Here.Is6() {
		name += "6"
	}
	return name
}

// answers looks whether the other host answers.
func (c *checks) answers(ctx context.Context, s *script.Setup) {
	for _, p := range s.Paths {
		name := fmt.Sprintf("%v REMOTE answers", pfconf.FamilyOf(p.Here))
		f, err := socket.OpenFence(p.Here, p.There)
		if err == nil {
			_, err = f.Pass(ctx)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			c.no(name, fmt.Sprintf("ping %v, and let the packet filters of both hosts pass ICMP echo", p.There), "%v", err)
			continue
		}
		c.ok(name, "%v", p.There)
	}
}

// hears looks whether a third host answers over REMOTE. That it does not stops no run: the targets
// that need it are ERROR.
func (c *checks) hears(ctx context.Context, s *script.Setup, beyond netip.Addr) {
	for _, p := range s.Paths {
		if pfconf.FamilyOf(p.Here) != pfconf.FamilyOf(beyond) {
			continue
		}
		f, err := socket.OpenFence(p.Here, beyond)
		if err == nil {
			_, err = f.Pass(ctx)
			err = errors.Join(err, f.Close())
		}
		name := fmt.Sprintf("%v third host answers", pfconf.FamilyOf(beyond))
		if err != nil {
			c.warn(name, fmt.Sprintf("ping -I %v %v, let REMOTE forward, and give the third host a route to LOCAL via REMOTE", p.Here,
				beyond), "%v", err)
			continue
		}
		c.ok(name, "%v", beyond)
	}
}

// fakes looks whether FAKE is no one's here.
func (c *checks) fakes(s *script.Setup) {
	const name = "FAKE must be unassigned"
	own, err := owned(s.Fakes)
	if err == nil {
		var more []string
		more, err = locals(s.Fakes)
		own = append(own, more...)
	}
	switch {
	case err != nil:
		c.fail(name, err)
	case len(own) > 0:
		c.no(name, "remove the address or route, or choose another FAKE address",
			"this host has %s, and would take the packets without any rule", strings.Join(own, ", "))
	default:
		c.ok(name, "this host has nothing of %s", joinPrefixes(s.Fakes))
	}
}

func joinPrefixes(ps []netip.Prefix) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

// interfaceOf returns the name of the interface that has the address, "" if none has.
func interfaceOf(addr netip.Addr) (string, error) {
	nics, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, nic := range nics {
		list, err := nic.Addrs()
		if err != nil {
			return "", fmt.Errorf("addresses of %s: %w", nic.Name, err)
		}
		for _, a := range list {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == addr {
					return nic.Name, nil
				}
			}
		}
	}
	return "", nil
}

// owned returns those addresses of this host that are in one of the prefixes. A
// REMOTE that has FAKE configured would receive what is sent to it without any rule.
func owned(fakes []netip.Prefix) ([]string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if !ok {
			continue
		}
		for _, f := range fakes {
			if f.Contains(ip.Unmap()) {
				found = append(found, ip.Unmap().String())
			}
		}
	}
	return found, nil
}
