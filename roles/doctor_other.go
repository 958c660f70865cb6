//go:build !linux

package roles

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/matrix/explain"
	"pfdivert/pfconf"
	"pfdivert/roles/gather"
	"pfdivert/roles/terminal"
)

const (
	doctorUsage = "[-json]"
	doctorHelp  = `On OpenBSD it reads pf's rules (divert-to, divert-reply, divert-packet, rdr-to), on
FreeBSD ipfw's (fwd, divert, tee) and pf's (rdr, divert-to), and looks for listeners
and divert sockets, for rules that decide in their place, and whether they are
evaluated at all. Nothing is changed on the host. Reading rules needs root: without it
doctor says what it could not see.

A line of the output is "ok", "bad", or "warn": wrong for some packets, or where it
depends on them. What could not be looked at, or is not understood, is a line
"not seen:" and is neither.

Exit status: 0 when nothing is bad, 1 when something is, 2 when it could not look.`
)

// runDoctor looks at the rules of a host whose kernel can't be copied.
func runDoctor(ctx context.Context, c *call) (int, error) {
	f := c.flags()
	asJSON := f.Bool("json", false, "print the findings as JSON")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if err := c.noArgs(f); err != nil {
		return exitError, err
	}
	seen, err := gather.LookAround(ctx)
	if err != nil {
		return exitError, terminal.WithHint(err, "start it on the host whose kernel diverts")
	}
	found := judge(seen)
	if err := found.write(c, *asJSON); err != nil {
		return exitError, err
	}
	switch {
	case found.Error != "":
		return exitError, terminal.WithHint(errors.New(found.Error), "start it as root (sudo or doas)")
	case found.bad():
		return exitFail, nil
	}
	return exitOK, nil
}

// The levels of a doctor's finding.
const (
	levelOK   = "ok"
	levelWarn = "warn" // it depends on the packets
	levelBad  = "bad"
)

// ailment is a finding of the doctor's.
type ailment struct {
	Level string `json:"level"`
	About string `json:"about"` // the rule, or the family and interface
	explain.Problem
}

// diagnosis is all that the doctor found.
type diagnosis struct {
	Found []ailment `json:"findings"`
	// Unseen says what could not be looked at, and why.
	Unseen []string `json:"unseen"`
	// Error says why the findings are no verdict, and is empty where they are one.
	Error string `json:"error,omitempty"`
}

// judge makes findings of what a host showed.
func judge(s *gather.Survey) *diagnosis {
	d := &diagnosis{Found: []ailment{}, Unseen: append([]string{}, s.Missing...)}
	if !s.RulesKnown {
		d.Error = "the rules could not be read"
	}
	told := map[string]bool{}
	add := func(about string, problems []explain.Problem) {
		for _, p := range problems {
			level := levelBad
			if p.Maybe {
				level = levelWarn
			}
			if key := about + p.Cause + p.Likely + p.Mend; !told[key] {
				told[key] = true
				d.Found = append(d.Found, ailment{level, about, p})
			}
		}
	}
	for _, rule := range s.Diversions {
		for _, f := range rule.Families {
			about := describeRule(rule, f)
			before := len(d.Found)
			problems := explain.Diverted(rule, f, hostOf(s, rule, f), s.Listeners, s.Firewall)
			if s.QueuesUnknown && rule.Kind == evidence.Divert {
				problems = slices.DeleteFunc(problems,
					func(p explain.Problem) bool { return strings.HasPrefix(p.Cause, "queue-") })
			}
			add(about, problems)
			switch {
			case len(d.Found) > before || told[about]:
			case rule.Unseen != "":
				told[about] = true
				d.Unseen = append(d.Unseen, about+": "+rule.Unseen)
			default:
				told[about] = true
				d.Found = append(d.Found, ailment{Level: levelOK, About: about})
			}
		}
	}
	for _, c := range s.Cells {
		about := fmt.Sprintf("%v packets", c.Family)
		if c.Interface != "" {
			about += fmt.Sprintf(" with mark 0x%x by %s", c.Mark, c.Interface)
		}
		firewall := s.Firewall
		if c.Firewall != "" {
			firewall = c.Firewall
			about += " in " + firewall
		}
		before := len(d.Found)
		add(about, explain.Problems(explain.HostFacts{Record: c.Cell, Remote: true}, firewall))
		if len(d.Found) == before {
			d.Found = append(d.Found, ailment{Level: levelOK, About: about})
		}
	}
	return d
}

// hostOf is the host as a rule's packets of a family meet it, with the queues that are open.
func hostOf(s *gather.Survey, rule evidence.Diversion, f pfconf.Family) explain.HostFacts {
	h := explain.HostFacts{Remote: true}
	for _, c := range s.Cells {
		if c.Family == f && c.Mark == rule.Mark {
			h.Record = c.Cell
		}
	}
	h.Sockets = s.Queues
	return h
}

// describeRule says which rule it is and where it leads.
func describeRule(d evidence.Diversion, f pfconf.Family) string {
	text := fmt.Sprintf("%s: %v", d.Rule, f)
	if d.Proto != "" {
		text += " " + d.Proto
	}
	switch d.Kind {
	case evidence.DivertReply:
		return text + " " + string(d.Kind)
	case evidence.Marks:
		return text + fmt.Sprintf(" to local sockets, mark 0x%x", d.Mark)
	case evidence.OfSocket:
		return text + fmt.Sprintf(" of transparent sockets, mark 0x%x", d.Mark)
	case evidence.Divert:
		return text + fmt.Sprintf(" to divert port %d", d.Queue)
	case evidence.Queue:
		text += fmt.Sprintf(" to queue %d", d.Queue)
		if d.Last != d.Queue {
			text += fmt.Sprintf("-%d", d.Last)
		}
		return text
	}
	to := fmt.Sprintf(":%d", d.Port)
	if d.Address.IsValid() {
		to = d.DivertsTo(f).String()
		if d.Port == 0 {
			to = d.Address.String()
		}
	}
	kind := string(d.Kind)
	if d.Firewall == "pf" && strings.HasPrefix(d.Rule, "rdr ") { // of FreeBSD's list that translates
		kind = "rdr ->"
	}
	text += " " + kind
	if d.Kind == evidence.TProxy || d.Kind == evidence.Redirect {
		text += " to"
	}
	text += " " + to
	if d.Mark != 0 {
		text += fmt.Sprintf(", mark 0x%x", d.Mark)
	}
	return text
}

// bad reports whether something is.
func (d *diagnosis) bad() bool {
	return slices.ContainsFunc(d.Found, func(a ailment) bool { return a.Level == levelBad })
}

func (d *diagnosis) write(c *call, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(c.Out)
		e.SetEscapeHTML(false)
		return e.Encode(d)
	}
	var b bytes.Buffer
	for _, a := range d.Found {
		fmt.Fprintf(&b, "%-4s  %s\n", a.Level, a.About)
		if a.Cause == "" {
			continue
		}
		fmt.Fprintf(&b, "      %s: %s\n", a.Cause, a.Likely)
		if a.Check != "" {
			fmt.Fprintf(&b, "      check: %s\n", a.Check)
		}
		if a.Mend != "" {
			fmt.Fprintf(&b, "      fix: %s\n", a.Mend)
		}
	}
	if len(d.Found) == 0 && len(d.Unseen) == 0 {
		fmt.Fprintln(&b, "no rule diverts to a program")
	}
	for _, text := range d.Unseen {
		fmt.Fprintf(&b, "not seen: %s\n", text)
	}
	_, err := b.WriteTo(c.Out)
	return err
}
