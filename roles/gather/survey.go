package gather

import (
	"context"
	"regexp"
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
	Listeners  []evidence.Listener    // nil when they are not known
	Queues     []evidence.SocketEntry // those that take netfilter queues, or divert sockets
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
	Cell      evidence.Record
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
			s.Cells = append(s.Cells, SurveyCell{Family: f, Cell: evidence.Record{Answers: []evidence.Answer{ask(f)}}})
		}
	}
}

// unseenSockets says which rules lead to sockets that are not looked for.
func (s *Survey) unseenSockets() {
	for i := range s.Diversions {
		d := &s.Diversions[i]
		switch {
		case d.Unseen != "":
		case d.Table != "" && d.Kind != evidence.DivertReply:
			d.Unseen = "who listens in routing domain " + d.Table + " is not looked at"
		case (d.Kind == evidence.RdrTo || d.Kind == evidence.Fwd) && d.Port == 0:
			d.Unseen = "whether a program listens on the packets' own port is not looked at"
		case d.Address.IsValid() && d.Proto != "" && d.Proto != "tcp" && d.Proto != "udp":
			d.Unseen = "whether a raw socket takes protocol " + d.Proto + " is not looked at"
		case d.Kind == evidence.Divert && s.QueuesUnknown:
			d.Unseen = "who reads from divert sockets is not known"
		case d.Kind == evidence.Divert && slices.ContainsFunc(s.Queues,
			func(q evidence.SocketEntry) bool { return divertSocket.MatchString(q.Text) }):
			d.Unseen = "there are divert sockets, and the system does not show of which port"
		}
	}
}

var interfaceLine = regexp.MustCompile(`^([^\s:]+): flags=`)

// absentInterfaces finds rules for interfaces that are not there.
func (s *Survey) absentInterfaces(ctx context.Context, run program.Runner) {
	out, err := ask1(ctx, run, "ifconfig", "-a")
	s.miss("interfaces", err)
	there := map[string]bool{"": true, "all": true, "any": true}
	for _, line := range program.Lines(out) {
		if m := interfaceLine.FindStringSubmatch(line); m != nil {
			there[m[1]] = true
		}
		if groups, ok := strings.CutPrefix(strings.TrimSpace(line), "groups: "); ok {
			for _, g := range strings.Fields(groups) {
				there[g] = true
			}
		}
	}
	if len(there) == 3 { // there is a loopback at least
		return
	}
	for i := range s.Diversions {
		if d := &s.Diversions[i]; !strings.HasPrefix(d.Interface, "!") && !there[d.Interface] && d.Unreached == "" {
			d.Unreached = "there is no interface or group " + d.Interface
			d.Fix = "name the interface by which the packets come (ifconfig)"
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
			err = parseNetstat(out, func(k evidence.SocketEntry) {
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
