package spoil

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// programmed is a step that the system's programs do.
type programmed struct {
	system   string
	settings []setting
	rule     string // of ipfw, with its number
}

// setting is a sysctl with the value that breaks something.
type setting struct {
	name  string
	value int
}

// The rules of the test have the number 1 and come into force after a rule of the same number that was
// there before.
var programSteps = map[Step]programmed{
	LittleRoom:    {system: "openbsd", settings: []setting{{"net.inet.divert.recvspace", 4000}, {"net.inet6.divert.recvspace", 4000}}},
	LittleWritten: {system: "openbsd", settings: []setting{{"net.inet.divert.sendspace", 4000}, {"net.inet6.divert.sendspace", 4000}}},
	AllowFirst:    {system: "freebsd", rule: "1 allow ip from any to any"},
	DropDiverted:  {system: "freebsd", rule: "2 deny ip from any to any diverted"},
	NoFilter:      {system: "freebsd", settings: []setting{{"net.inet.ip.fw.enable", 0}, {"net.inet6.ip6.fw.enable", 0}}},
	FewFragments:  {system: "freebsd", settings: []setting{{"net.inet.ip.maxfragsperpacket", 16}, {"net.inet6.ip6.maxfragsperpacket", 16}}},
}

// byPrograms does a step on a host of the system.
func (h Host) byPrograms(ctx context.Context, system string, s Step) error {
	p, there := programSteps[s]
	if !there || p.system != system {
		return fmt.Errorf("there is no step %q on %s", s, system)
	}
	for _, set := range p.settings {
		if err := h.set(ctx, set); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	if p.rule != "" {
		if _, err := ask(ctx, h.Run, append([]string{"ipfw", "-q", "add"}, strings.Fields(p.rule)...)...); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

func (h Host) set(ctx context.Context, s setting) error {
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
	return fmt.Errorf("undo %q %q: not a step that breaks a lab", u.Do, u.Args)
}

// known tells whether a step sets the sysctl.
func known(name string) bool {
	for _, p := range programSteps {
		if slices.ContainsFunc(p.settings, func(s setting) bool { return s.name == name }) {
			return true
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
