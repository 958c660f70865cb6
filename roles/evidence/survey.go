package evidence

import (
	"context"
	"errors"
	"slices"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// Survey is what a host that diverts to a program of its own shows.
type Survey struct {
	Firewall string // whose rules they are (pfconf.Firewall.Name)
	// Diversions are the rules that divert; RulesKnown: they could be read.
	Diversions []evidence.Diversion
	RulesKnown bool
	Listeners  []evidence.Listener // nil when they are not known
	Queues     []evidence.Socket   // those that take netfilter queues, or divert sockets
	// QueuesUnknown: divert sockets could not be listed.
	QueuesUnknown bool
	// Cells are what the host answers about packets that a rule diverts: on Linux that a tproxy
	// rule does, by interface.
	Cells []SurveyCell
	// Missing says what could not be asked, and why.
	Missing []string
}

// SurveyCell are the answers about packets of a family that come in by an interface, "" for any.
type SurveyCell struct {
	Family    pfconf.Family
	Interface string
	Mark      uint32
	Firewall  string // whose packets, "" for the survey's
	Cell      evidence.Cell
}

// miss notes what could not be looked at.
func (s *Survey) miss(what string, err error) {
	if err == nil {
		return
	}
	if text := what + ": " + err.Error(); !slices.Contains(s.Missing, text) {
		s.Missing = append(s.Missing, text)
	}
}

// ask1 runs a program and gives what it prints. One that fails has answered nothing.
func ask1(ctx context.Context, run program.Runner, argv ...string) (string, error) {
	r, err := run(ctx, program.Command{Argv: argv})
	if err != nil || r.Status != 0 {
		return "", &program.Failure{Argv: argv, Status: r.Status, Stderr: r.Stderr, Err: err}
	}
	return r.Stdout, nil
}

// answers asks about packets of each family that a rule diverts.
func (s *Survey) answers(ask func(pfconf.Family) evidence.Answer) {
	for _, f := range pfconf.Families {
		if slices.ContainsFunc(s.Diversions,
			func(d evidence.Diversion) bool { return slices.Contains(d.Families, f) }) {
			s.Cells = append(s.Cells, SurveyCell{Family: f, Cell: evidence.Cell{Answers: []evidence.Answer{ask(f)}}})
		}
	}
}

// unseenSockets says which rules lead to sockets that are not looked for.
func (s *Survey) unseenSockets() {
	for _, d := range s.Diversions {
		if d.Table != "" && d.Kind != evidence.DivertReply {
			s.miss(d.Rule, errors.New("who listens in routing domain "+d.Table+" is not looked at"))
		} else if d.Kind == evidence.RdrTo && d.Port == 0 {
			s.miss(d.Rule, errors.New("whether a process listens on the packets' own port is not looked at"))
		}
		if d.Kind == evidence.Fwd && d.Port == 0 {
			s.miss(d.Rule, errors.New("whether a process listens on the packets' own port is not looked at"))
		} else if d.Address.IsValid() && d.Proto != "" && d.Proto != "tcp" && d.Proto != "udp" {
			s.miss(d.Rule, errors.New("whether a raw socket takes protocol "+d.Proto+" is not looked at"))
		}
	}
}

// sockets lists those that could get diverted packets. wide is netstat's option for addresses in
// full.
func (s *Survey) sockets(ctx context.Context, run program.Runner, wide string) {
	listeners := []evidence.Listener{} // none is known to be none
	for _, f := range pfconf.Families {
		out, err := ask1(ctx, run, "netstat", "-an", wide, "-f", f.String())
		if err == nil {
			err = parseNetstat(out, func(k evidence.Socket) {
				switch {
				case k.Proto == evidence.ProtoDivert:
					s.Queues = append(s.Queues, k)
				case k.Proto == "tcp" && k.State == "LISTEN" || k.Proto == "udp" && !k.Remote.IsValid():
					// FreeBSD's tcp46 takes both families.
					both := strings.Contains(strings.Fields(k.Text)[0], "46")
					listeners = append(listeners, evidence.Listener{Proto: k.Proto, At: k.Local,
						Only6: k.Local.Addr().Is6() && !both})
				}
			})
		}
		if err != nil {
			s.miss("sockets of "+f.String(), err)
			s.Queues, s.QueuesUnknown = nil, true
			return
		}
	}
	s.Listeners = listeners
}
