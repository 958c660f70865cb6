package evidence

import (
	"context"
	"errors"
	"slices"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

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
func (s *Survey) answers(ask func(pfconf.Family) Answer) {
	for _, f := range pfconf.Families {
		if slices.ContainsFunc(s.Diversions, func(d Diversion) bool { return slices.Contains(d.Families, f) }) {
			s.Cells = append(s.Cells, SurveyCell{Family: f, Cell: Cell{Answers: []Answer{ask(f)}}})
		}
	}
}

// unseenSockets says which rules lead to sockets that are not looked for.
func (s *Survey) unseenSockets() {
	for _, d := range s.Diversions {
		if d.Table != "" && d.Kind != DivertReply {
			s.miss(d.Rule, errors.New("who listens in routing domain "+d.Table+" is not looked at"))
		} else if d.Kind == RdrTo && d.Port == 0 {
			s.miss(d.Rule, errors.New("whether somebody listens on the packets' own port is not looked at"))
		}
		if d.Kind == Fwd && d.Port == 0 {
			s.miss(d.Rule, errors.New("whether somebody listens on the packets' own port is not looked at"))
		} else if d.Address.IsValid() && d.Proto != "" && d.Proto != "tcp" && d.Proto != "udp" {
			s.miss(d.Rule, errors.New("whether a raw socket takes protocol "+d.Proto+" is not looked at"))
		}
	}
}

// sockets lists those that could get diverted packets. wide is netstat's option for addresses in
// full.
func (s *Survey) sockets(ctx context.Context, run program.Runner, wide string) {
	listeners := []Listener{} // none is known to be none
	for _, f := range pfconf.Families {
		out, err := ask1(ctx, run, "netstat", "-an", wide, "-f", f.String())
		if err == nil {
			err = parseNetstat(out, func(k Socket) {
				switch {
				case k.Proto == protoDivert:
					s.Queues = append(s.Queues, k)
				case k.Proto == "tcp" && k.State == "LISTEN" || k.Proto == "udp" && !k.Remote.IsValid():
					// FreeBSD's tcp46 takes both families.
					both := strings.Contains(strings.Fields(k.Text)[0], "46")
					listeners = append(listeners, Listener{Proto: k.Proto, At: k.Local, Only6: k.Local.Addr().Is6() && !both})
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
