package inject

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"pfdivert/matrix/injection"
	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
)

// programmed is a step that the system's programs do.
type programmed struct {
	settings []setting
	commands func(BrokenHost) [][]string
	skips    string // an interface that pf is not to see
	// off are sysctls that must be 0: else the step does nothing to the host, and fails.
	off []string
}

// setting is a sysctl with the value that breaks something.
type setting struct {
	name  string
	value int
}

func set(all ...setting) programmed { return programmed{settings: all} }

// rule is one of ipfw's, with its number.
func rule(text string) programmed {
	return programmed{commands: func(BrokenHost) [][]string { return [][]string{ipfwAdd(text)} }}
}

func ipfwAdd(text string) []string {
	return append([]string{"ipfw", "-q", "add"}, strings.Fields(text)...)
}

// forEach is what is done for each family with its prefix of FAKE, and with the hosts' addresses.
func forEach(command func(h BrokenHost, p AddressPair, fake netip.Prefix) []string) programmed {
	return programmed{commands: func(h BrokenHost) [][]string {
		var all [][]string
		for _, p := range h.Paths {
			all = append(all, command(h, p, h.fake(pfconf.FamilyOf(p.Here))))
		}
		return all
	}}
}

// deny drops packets of FAKE's before the test's rules: those have the number 1 and come into force
// after a rule of the same number that was there before.
func deny(pattern string) programmed {
	return forEach(func(_ BrokenHost, p AddressPair, fake netip.Prefix) []string {
		version := "ip4"
		if p.Here.Is6() {
			version = "ip6"
		}
		return ipfwAdd("1 deny " + version + " " + strings.ReplaceAll(pattern, "FAKE", fake.String()))
	})
}

// ownFake returns the first address of FAKE's prefix to the interface, which ends with the lab.
var ownFake = forEach(func(h BrokenHost, p AddressPair, fake netip.Prefix) []string {
	first := fake.Addr()
	if !fake.IsSingleIP() {
		first = first.Next()
	}
	return []string{"ifconfig", h.Interface, pfconf.FamilyOf(p.Here).String(),
		netip.PrefixFrom(first, first.BitLen()).String(), "alias"}
})

// noFakeRoute takes LOCAL's route away.
var noFakeRoute = forEach(func(_ BrokenHost, p AddressPair, fake netip.Prefix) []string {
	if fake.IsSingleIP() {
		return []string{"route", "-n", "delete", "-" + pfconf.FamilyOf(p.Here).String(), "-host", fake.Addr().String(),
			p.There.String()}
	}
	return []string{"route", "-n", "delete", "-" + pfconf.FamilyOf(p.Here).String(), "-net", fake.String(),
		p.There.String()}
})

var forwarding = set(setting{"net.inet.ip.forwarding", 1}, setting{"net.inet6.ip6.forwarding", 1})

var forwardingSettings = []string{"net.inet.ip.forwarding", "net.inet6.ip6.forwarding"}

// programSteps are those of a system.
var programSteps = map[string]map[injection.Action]programmed{
	"openbsd": {
		injection.OwnFake: ownFake, injection.NoFakeRoute: noFakeRoute, injection.Forwarding: forwarding,
		injection.LittleRoom: set(setting{"net.inet.divert.recvspace", 4000},
			setting{"net.inet6.divert.recvspace", 4000}),
		injection.SkipLoopback: {skips: "lo0"}, injection.NotForwarding: {off: forwardingSettings},
		injection.LittleWritten: set(setting{"net.inet.divert.sendspace", 4000},
			setting{"net.inet6.divert.sendspace", 4000}),
	},
	"freebsd": {
		injection.OwnFake: ownFake, injection.NoFakeRoute: noFakeRoute, injection.Forwarding: forwarding,
		injection.SkipLoopback: {}, injection.NotForwarding: {},
		injection.AllowFirst:   rule("1 allow ip from any to any"),
		injection.DropDiverted: rule("2 deny ip from any to any diverted"),
		injection.DropEarly:    deny("from any to FAKE in"),
		injection.DropOut:      deny("from FAKE to any out"),
		injection.DropFake:     deny("from FAKE to any in"), // on LOCAL
		injection.NoFilter:     set(setting{"net.inet.ip.fw.enable", 0}, setting{"net.inet6.ip6.fw.enable", 0}),
		injection.FewFragments: set(setting{"net.inet.ip.maxfragsperpacket", 16},
			setting{"net.inet6.ip6.maxfragsperpacket", 16}),
	},
}

// byPrograms does a step on a host of the system.
func (h BrokenHost) byPrograms(ctx context.Context, system string, s injection.Action) error {
	p, there := programSteps[system][s]
	if !there {
		return fmt.Errorf("there is no step %q on %s", s, system)
	}
	for _, name := range p.off {
		switch value, err := ask(ctx, h.Run, "sysctl", "-n", name); {
		case err != nil:
			return fmt.Errorf("%s: %w", s, err)
		case value != "0":
			return fmt.Errorf("%w: sysctl %s is %s, and it must be 0", ErrLacks, name, value)
		}
	}
	for _, set := range p.settings {
		if err := h.set(ctx, set); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	if p.skips != "" {
		if err := h.skip(ctx, p.skips); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	if p.commands == nil {
		return nil
	}
	for _, argv := range p.commands(h) {
		if _, err := ask(ctx, h.Run, argv...); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// skip has pf not see an interface, unless it does not anyway.
func (h BrokenHost) skip(ctx context.Context, name string) error {
	skipped, err := pf.NewControl(h.Run, 0).Skipped(ctx)
	if err != nil || slices.Contains(skipped, name) {
		return err
	}
	if h.Journal != nil {
		if err := h.Journal(pfconf.Undo{Do: UndoSkip, Args: []string{name}}); err != nil {
			return fmt.Errorf("write the journal: %w", err)
		}
	}
	return pfSkip(name, true)
}

// pfSkip is pf.Skip, for which tests have their own.
var pfSkip = pf.Skip

// UndoSkip is the step that has pf see the interface again that is its argument.
const UndoSkip = "spoil/skip"

func (h BrokenHost) set(ctx context.Context, s setting) error {
	if h.Journal != nil {
		was, err := ask(ctx, h.Run, "sysctl", "-n", s.name)
		if err != nil {
			return err
		}
		if _, err := strconv.Atoi(was); err != nil {
			return fmt.Errorf("sysctl %s: %w", s.name, err)
		}
		if err := h.Journal(pfconf.Undo{Do: UndoSetting, Args: []string{s.name, was}}); err != nil {
			return fmt.Errorf("write the journal: %w", err)
		}
	}
	_, err := ask(ctx, h.Run, "sysctl", fmt.Sprintf("%s=%d", s.name, s.value))
	return err
}

// UndoSetting is the step that sets a sysctl, its first argument, back to the second.
const UndoSetting = "spoil/sysctl"

// Undo undoes what Do recorded in the journal.
func Undo(ctx context.Context, run program.Runner, u pfconf.Undo) error {
	if u.Do == UndoSetting && len(u.Args) == 2 && known(u.Args[0]) {
		if n, err := strconv.Atoi(u.Args[1]); err == nil {
			_, err := ask(ctx, run, "sysctl", fmt.Sprintf("%s=%d", u.Args[0], n))
			return err
		}
	}
	if u.Do == UndoSkip && len(u.Args) == 1 && u.Args[0] == programSteps["openbsd"][injection.SkipLoopback].skips {
		return pfSkip(u.Args[0], false)
	}
	return fmt.Errorf("undo %q %q: not a step that breaks a lab", u.Do, u.Args)
}

// known reports whether a step sets the sysctl.
func known(name string) bool {
	for _, steps := range programSteps {
		for _, p := range steps {
			if slices.ContainsFunc(p.settings, func(s setting) bool { return s.name == name }) {
				return true
			}
		}
	}
	return false
}

// ask runs a program and gives what it printed.
func ask(ctx context.Context, run program.Runner, argv ...string) (string, error) {
	r, err := run(ctx, program.Command{Argv: argv})
	if err != nil || r.Status != 0 {
		return "", &program.Failure{Argv: argv, Status: r.Status, Stderr: r.Stderr, Err: err}
	}
	return strings.TrimSpace(r.Stdout), nil
}
