package twin

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Diagnosis is what was found on a host.
type Diagnosis struct {
	Problems []Problem
	Results  []FlowResult
	// Diverts reports whether a rule diverts to a program of the host.
	Diverts bool
	// Paths are the traces of the flows that were traced, by Flow.ID.
	Paths map[string]FlowPath
	// Willed are flows that the host's own rules refuse on purpose, one line each.
	Willed []string
	// Notes are what the verdict does not cover, one line each.
	Notes []string
}

// Options of a diagnosis.
type Options struct {
	Flows []Flow // run beside those that are planned
	Only  bool   // run those alone
	Trace bool   // trace all flows, not only those that fail
}

// Bounds of a diagnosis.
const (
	maxTraced      = 48 // flows
	maxTrials      = 60 // twins that are built to try causes and fixes
	maxDifferences = 20 // of a twin that are told
)

// Diagnose builds twins of a host, runs flows in them and finds what is wrong. An error means that
// nothing is known of the host.
func Diagnose(ctx context.Context, c *Snapshot, o Options) (*Diagnosis, error) {
	d := &doctor{ctx: ctx, c: c, hints: c.hints(), paths: map[string]FlowPath{}}
	flows := slices.Clone(o.Flows)
	if !o.Only {
		flows = append(flows, Plan(c)...)
	}
	var err error
	d.results, err = perOwner(c, flows, func(c *Snapshot, flows []Flow) ([]FlowResult, error) {
		t, err := Build(ctx, c)
		if err != nil {
			return nil, err
		}
		defer t.Close()
		different, err := t.compare(ctx)
		if err != nil {
			return nil, err
		}
		for i, x := range append(t.Differences, different...) {
			if i == maxDifferences {
				d.note("not the same in the twin: … and more")
				break
			}
			d.note("not the same in the twin: " + x.String())
		}
		for _, x := range t.Warnings {
			d.note("stand-in: " + x)
		}
		return t.Play(ctx, flows)
	})
	if err != nil {
		return nil, err
	}
	if len(d.results) == 0 && d.diverts() {
		return nil, untested{}
	}
	for _, x := range c.NotCloned {
		d.notes = append(d.notes, "not in the twin: "+x)
	}
	if err := d.trace(o.Trace); err != nil {
		return nil, err
	}
	if err := d.judge(); err != nil {
		return nil, err
	}
	d.sort()
	return &Diagnosis{Problems: d.problems, Results: d.results, Diverts: d.diverts(), Paths: d.paths, Willed: d.willed,
		Notes: d.notes}, nil
}

// doctor is a diagnosis under way.
type doctor struct {
	ctx      context.Context
	c        *Snapshot
	hints    hints
	results  []FlowResult
	paths    map[string]FlowPath
	problems []Problem
	willed   []string
	notes    []string
	trials   int
}

// symptom is what is wrong with a flow.
type symptom string

const (
	lost       symptom = "lost"       // not answered, or not to the end
	undiverted symptom = "undiverted" // rules mean it for the proxy, and it goes out
	looped     symptom = "loop"       // what the rules leave out, or should, is diverted
	captured   symptom = "captured"   // for a service of the host, and the proxy has it
	reachable  symptom = "asked"      // the proxy's own port answers clients
	unrouted   symptom = "no route"   // the host's own, which no route leads out
	guessed    symptom = "borrowed"   // of a program with a client's address
	mistaken   symptom = "redirected" // redirected to a listener that expects tproxy
	hairpin    symptom = "hairpin"    // sent to a neighbor of the client, who answers it past the host
)

// suspect is a flow that may have something wrong.
type suspect struct {
	FlowResult
	symptom symptom
	path    FlowPath
	key     PacketPath // the packet that decides
	end     ending
	sign    string // of the same cause: the same
}

// isProxy reports whether rules divert to a socket of the host.
func (d *doctor) isProxy(i int) bool {
	if i < 0 || i >= len(d.c.Sockets) {
		return false
	}
	return d.hints.listens(d.c.Sockets[i])
}

// serves reports whether a socket of the host is for a flow's own destination.
func (d *doctor) serves(s BoundSocket, f Flow) bool {
	if s.Proto != f.Proto || s.Local.Port() != f.To.Port() {
		return false
	}
	a, to := s.Local.Addr(), f.To.Addr()
	return a == to || a.IsUnspecified() && (a.Is6() == to.Is6() || a.Is6() && !s.V6Only)
}

// sidecar reports whether a listener is a service mesh's for what comes to the host's own services:
// the host's own programs are diverted to another one, and no client behind the host to this one.
func (d *doctor) sidecar(socket int) bool {
	uplinks, other := d.c.uplinks(), false
	for _, r := range d.results {
		if r.Reached != AtSocket || !d.isProxy(r.Socket) {
			continue
		}
		switch {
		case r.Flow.Kind == Own && r.Socket != socket:
			other = true
		case r.Flow.Kind == Own:
			return false
		case r.Flow.Kind == Client && r.Socket == socket:
			for _, l := range d.c.Links {
				if l.Name == r.Flow.In && !uplinks[d.c.holder(l).Index] {
					return false
				}
			}
		}
	}
	return other
}

// diverting reports whether rules of a hook divert packets of a family.
func (d *doctor) diverting(hook int, six bool) bool {
	return slices.ContainsFunc(d.hints.seen, func(s hookSeen) bool {
		diverts := s.redirect || s.marks && d.intends(s.set, six) || d.c.marksLocal(s.hint, six)
		return s.hook == hook && s.of(six) && diverts
	})
}

// complaint is what seems wrong with a result, before its path is known: "" for nothing.
func (d *doctor) complaint(r FlowResult) symptom {
	proxy := r.Reached == AtSocket && d.isProxy(r.Socket)
	switch r.Flow.Kind {
	case Client, Own, Given:
		switch {
		case r.Flow.Local() && r.Outcome == NoRoute:
			return unrouted
		case !r.OK():
			return lost
		case r.Reached == AtSocket && r.Redirected() && proxy && d.c.Sockets[r.Socket].Transparent &&
			r.Flow.Proto == "tcp" && r.Original.IsValid() && r.Original != r.SeenTo:
			return mistaken
		case d.pastHost(r):
			return hairpin
		case r.Reached == Internet && d.diverting(hookOf(r.Flow), r.Flow.IPv6()):
			return undiverted
		}
	case Exempt:
		switch {
		case proxy:
			return looped
		case r.Outcome == NoRoute:
			return ""
		case !r.OK():
			return lost
		}
	case Guessed: // another program's proxy may take what it sends
		if proxy && d.c.Sockets[r.Socket].UID == r.Flow.UID && d.c.Sockets[r.Socket].GID == r.Flow.GID {
			return looped
		}
	case Service:
		switch {
		case proxy && !d.serves(d.c.Sockets[r.Socket], r.Flow) && !d.sidecar(r.Socket) &&
			slices.ContainsFunc(d.c.Sockets, func(s BoundSocket) bool { return d.serves(s, r.Flow) }):
			return captured
		case !r.OK():
			return lost
		}
	case Asked:
		if proxy && d.c.Sockets[r.Socket].Transparent && d.serves(d.c.Sockets[r.Socket], r.Flow) {
			return reachable
		}
	case Borrowed:
		if !r.OK() {
			return guessed
		}
	case AsClient:
		if !r.OK() {
			return lost
		}
	}
	return ""
}

func hookOf(f Flow) int {
	if f.Local() {
		return 3 // NF_INET_LOCAL_OUT
	}
	return 0
}

// trace traces the flows that seem wrong, and those that were given.
func (d *doctor) trace(all bool) error {
	var flows []Flow
	seen := map[string]int{}
	for _, r := range d.results {
		s := d.complaint(r)
		given := r.Flow.Kind == Given
		if s == "" && !all && !given {
			continue
		}
		// Of flows that look alike some are enough.
		like := fmt.Sprint(s, r.Flow.Kind, r.Flow.In, r.Flow.Proto, r.Flow.IPv6(), r.Outcome, r.Reached, r.Flow.Mark,
			r.Flow.UID, r.Flow.GID)
		if seen[like]++; len(flows) < maxTraced && (all || given || seen[like] <= 6) {
			flows = append(flows, r.Flow)
		}
	}
	if len(flows) == 0 {
		return nil
	}
	results, paths, err := Trace(d.ctx, d.c, flows)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	for i, p := range paths {
		d.paths[flows[i].ID] = p
		// Its own packets, and not the counters of all that were traced with it.
		if results[i].Outcome == Complete && d.find(flows[i].ID).Outcome != Complete {
			d.notes = append(d.notes, fmt.Sprintf("%s failed once and then did not", flows[i].ID))
		}
	}
	return nil
}

func (d *doctor) find(id string) FlowResult {
	for _, r := range d.results {
		if r.Flow.ID == id {
			return r
		}
	}
	return FlowResult{}
}

// suspects are the flows that are wrong, in groups of the same kind.
func (d *doctor) suspects() [][]suspect {
	var groups [][]suspect
	index := map[string]int{}
	for _, r := range d.results {
		s := suspect{FlowResult: r, symptom: d.complaint(r), path: d.paths[r.Flow.ID]}
		if s.symptom == "" || s.path.Flow == "" {
			continue
		}
		s.key = d.deciding(r, s.path, s.symptom)
		s.end = s.key.end()
		if !d.counts(&s) {
			continue
		}
		if i, ok := index[s.sign]; ok {
			groups[i] = append(groups[i], s)
			continue
		}
		index[s.sign] = len(groups)
		groups = append(groups, []suspect{s})
	}
	return groups
}

// deciding is the packet that shows why a flow fails: the first that did not arrive.
func (d *doctor) deciding(r FlowResult, p FlowPath, s symptom) PacketPath {
	var first PacketPath
	for _, k := range p.Packets {
		if first.Hops == nil {
			first = k
		}
		if s != lost && s != guessed {
			return first
		}
		e := k.end()
		if k.Flags == "RST" || k.Flags == "RST+ACK" { // which only says that something was lost before
			continue
		}
		if e.stage != atSocket && e.stage != left {
			return k
		}
		if k.Answer && ((e.out == "lo") != r.Flow.Local() || e.stage == left && !r.Flow.Local() &&
			e.out != first.end().in || d.sourceChanged(k) || e.mark != 0 && d.c.routesLocal(e.mark, r.Flow.IPv6())) {
			return k
		}
		if !k.Answer && d.c.routesLocal(e.mark, e.to.Addr().Is6()) && e.stage == left && e.out != "lo" {
			return k
		}
		// A later packet of a flow that is diverted goes another way than the first.
		if !k.Answer && k.Flags != first.Flags && (e.stage != first.end().stage || e.mark != first.end().mark) {
			return k
		}
	}
	return first
}

// sourceChanged reports whether an answer leaves with another source than it had.
func (d *doctor) sourceChanged(k PacketPath) bool {
	a, ok := k.at("postrouting first")
	b, ok2 := k.at("postrouting last")
	return ok && ok2 && a.From != b.From
}

// involved reports whether rules that divert had to do with the flow.
func (d *doctor) involved(p FlowPath) bool {
	for _, k := range p.Packets {
		for _, h := range k.Hops {
			if h.own {
				if h.To != k.To && d.ownAddr(h.To.Addr()) {
					return true
				}
				if d.c.routesLocal(h.Mark, h.To.Addr().Is6()) {
					return true
				}
				// It was routed to the host, and is for another.
				if h.Chain == "input first" && !k.Answer && isPublic(h.To.Addr()) && !d.ownAddr(h.To.Addr()) {
					return true
				}
				continue
			}
			if d.c.routesLocal(h.Mark, h.To.Addr().Is6()) || h.tproxies() || h.redirects() &&
				!strings.Contains(strings.ToLower(h.Rule), "dnat") {
				return true
			}
		}
	}
	return false
}

// sentAway reports whether a rule sends a flow for the internet to another host.
func sentAway(f Flow, p FlowPath) bool {
	return (f.Kind == Client || f.Kind == Own) && slices.ContainsFunc(p.Packets, func(k PacketPath) bool {
		return !k.Answer && isPublic(k.To.Addr()) && slices.ContainsFunc(k.Hops,
			func(h Hop) bool { return h.To.Addr() != k.To.Addr() })
	})
}

func (d *doctor) ownAddr(a netip.Addr) bool {
	return a.IsLoopback() || slices.ContainsFunc(d.c.Addrs, func(x Addr) bool { return x.Local == a })
}

// counts reports whether something is wrong that rules that divert have to do with, and gives the
// suspect a sign that those of the same cause have.
func (d *doctor) counts(s *suspect) bool {
	involved := d.involved(s.path)
	e := s.end
	s.sign = fmt.Sprint(s.symptom, s.Outcome == Refused, e.stage, s.key.Answer, e.hop.Family, e.hop.Table, e.hop.Chain,
		e.hop.Number, e.mark, s.Flow.Kind == Service, s.Flow.Local(), s.Flow.IPv6(), e.out, s.key.Flags == "SYN" ||
			s.key.Proto == "udp")
	switch s.symptom {
	case looped, captured, reachable, mistaken:
		if s.symptom == captured && d.inboundOnly(s.Socket) {
			return false
		}
		s.sign = fmt.Sprint(s.symptom, s.Flow.Kind, s.Flow.Mark, s.Flow.UID, s.Flow.GID, s.Socket, s.Flow.IPv6())
		if s.Flow.Kind == Guessed && !d.guessed(s.Flow, true) {
			return false
		}
		if s.symptom == looped {
			h, _ := s.key.diverter()
			s.sign += fmt.Sprint(h.Table, h.Chain, h.Number)
		}
		return true
	case unrouted:
		s.sign = fmt.Sprint(s.symptom, s.Flow.IPv6())
		return d.diverting(3, s.Flow.IPv6()) && s.Flow.Mark == 0
	case guessed:
		return true
	case hairpin:
		s.sign = fmt.Sprint(s.symptom, s.Flow.In, s.SeenTo, s.Flow.IPv6())
		return true
	case undiverted:
		if d.intends(e.mark, s.Flow.IPv6()) {
			return true
		}
		_, ok := d.socketRule(s.key)
		s.sign = fmt.Sprint(s.symptom, "socket", s.Flow.In, s.Flow.IPv6())
		return ok && d.similarDiverted(s.FlowResult)
	}
	// lost
	involved = involved || (e.stage == inRules || e.stage == inRouting) && sentAway(s.Flow, s.path) ||
		s.Flow.Kind == AsClient && e.mark != 0
	if e.stage == inRules && !involved {
		d.willed = append(d.willed, fmt.Sprintf("%s: %s by %s", s.Flow.ID, s.Outcome, e.hop.name(d.c)))
		return false
	}
	if e.stage == untraced && s.Outcome != Denied && !s.Flow.Local() {
		d.willed = append(d.willed,
			fmt.Sprintf("%s: %s before PREROUTING (nft list tables netdev)", s.Flow.ID, s.Outcome))
		return false
	}
	if e.stage == untraced && s.Outcome == Denied {
		d.willed = append(d.willed, fmt.Sprintf("%s: %s", s.Flow.ID, s.Error))
		return false
	}
	return involved
}

// guessed reports whether flows of the program that sent a guessed one come back to it: all of
// them, or those to the internet.
func (d *doctor) guessed(f Flow, internet bool) bool {
	return !slices.ContainsFunc(d.results, func(r FlowResult) bool {
		alike := r.Flow.Kind == Guessed && r.Flow.UID == f.UID && r.Flow.GID == f.GID && r.Flow.IPv6() == f.IPv6()
		return alike && d.complaint(r) == "" && (!internet || isPublic(r.Flow.To.Addr()))
	})
}

// inboundOnly reports whether a proxy's listener is one for services, as a sidecar has it beside
// one for the host's own connections.
func (d *doctor) inboundOnly(socket int) bool {
	other := false
	for _, r := range d.results {
		if r.Flow.Kind == Own && r.Reached == AtSocket && d.isProxy(r.Socket) {
			if r.Socket == socket {
				return false
			}
			other = true
		}
	}
	return other
}

// socketRule is a rule by which a packet left that asks for its socket.
func (d *doctor) socketRule(k PacketPath) (Hop, bool) {
	for _, h := range k.rules() {
		if strings.Contains(h.Rule, "socket") && (h.Verdict == "return" || h.Verdict == "accept") {
			return h, true
		}
	}
	return Hop{}, false
}

// similarDiverted reports whether a flow that differs in its port alone came to the proxy.
func (d *doctor) similarDiverted(r FlowResult) bool {
	return slices.ContainsFunc(d.results, func(o FlowResult) bool {
		return o.Flow.Kind == r.Flow.Kind && o.Flow.In == r.Flow.In && o.Flow.Proto == r.Flow.Proto &&
			o.Flow.From.Addr() == r.Flow.From.Addr() &&
			o.Flow.To.Addr() == r.Flow.To.Addr() && o.Reached == AtSocket && d.isProxy(o.Socket)
	})
}

// judge finds causes and fixes for all that is wrong.
func (d *doctor) judge() error {
	if err := d.listenersMissing(); err != nil {
		return err
	}
	for _, g := range d.suspects() {
		g = slices.DeleteFunc(g, func(s suspect) bool { return d.told(s.Flow.ID) })
		if len(g) == 0 {
			continue
		}
		if err := d.explain(g); err != nil {
			return err
		}
	}
	if err := d.leaked(); err != nil {
		return err
	}
	d.bridgePorts()
	if err := d.shadowed(); err != nil {
		return err
	}
	d.unmet()
	return nil
}

// told reports whether a problem names a flow already.
func (d *doctor) told(id string) bool {
	return slices.ContainsFunc(d.problems, func(p Problem) bool { return slices.Contains(p.Flows, id) })
}

// remedy is a possible cause, with what takes it away.
type remedy struct {
	cause  string
	why    string
	check  string
	take   change // takes the cause away: it confirms the cause
	fix    change // is what take is where it is not set
	price  string
	narrow change
	mark   uint32 // that flows have with narrow, 0 for their own
	socket int    // of whose flows the fix may take some, from 1; 0 for none
}

// good reports whether a flow is now as it should be.
func (d *doctor) good(s symptom, r FlowResult) bool {
	proxy := r.Reached == AtSocket
	switch s {
	case undiverted:
		return r.OK() && proxy
	case looped:
		return r.OK() && !(proxy && d.isProxy(r.Socket))
	case captured:
		return r.OK() && proxy && d.serves(d.c.Sockets[min(r.Socket, len(d.c.Sockets)-1)], r.Flow)
	case reachable:
		return !r.OK()
	case mistaken:
		return r.OK() && proxy // at a listener that was changed
	case hairpin:
		return r.OK() && !d.pastHost(r)
	}
	if r.Flow.Kind == Client || r.Flow.Kind == Own || r.Flow.Kind == Given {
		// A rule may send it to another host.
		away := r.SeenTo.IsValid() && r.SeenTo.Addr() != r.Flow.To.Addr()
		return r.OK() && (proxy || away || d.isDirect(r.Flow))
	}
	return r.OK()
}

// isDirect reports whether a traced flow left the host, or should have, and no rule meant it for
// the proxy.
func (d *doctor) isDirect(f Flow) bool {
	for _, k := range d.paths[f.ID].Packets {
		if !k.Answer {
			e := k.end()
			astray := e.stage == atSocket && e.mark == 0 && !d.ownAddr(e.to.Addr()) && d.diverted(f) != 0
			return e.stage == left && !d.intends(e.mark, f.IPv6()) || astray
		}
	}
	return false
}

// try reports whether all flows are good with some changes.
func (d *doctor) try(s symptom, flows []Flow, changes ...change) (bool, error) {
	results, err := d.run(flows, changes...)
	if err != nil || results == nil {
		return false, err
	}
	for _, r := range results {
		if !d.good(s, r) {
			return false, nil
		}
	}
	return true, nil
}

// run runs flows in a twin with some changes. No results are of one that can't be made so.
func (d *doctor) run(flows []Flow, changes ...change) ([]FlowResult, error) {
	if d.trials++; d.trials > maxTrials {
		return nil, nil
	}
	c, err := d.c.with(changes...)
	if err != nil {
		return nil, d.ctx.Err()
	}
	return perOwner(c, flows, d.runIn)
}

// note adds a note once.
func (d *doctor) note(text string) {
	if !slices.Contains(d.notes, text) {
		d.notes = append(d.notes, text)
	}
}

// runIn runs flows in a twin of a configuration that was changed.
func (d *doctor) runIn(c *Snapshot, flows []Flow) ([]FlowResult, error) {
	t, err := Build(d.ctx, c)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if len(t.Differences) > 0 && slices.ContainsFunc(t.Differences,
		func(x Difference) bool { return strings.Contains(x.What, "rule") }) {
		before := slices.ContainsFunc(d.notes,
			func(n string) bool { return strings.HasPrefix(n, "not the same in the twin: ") })
		if !before {
			return nil, nil // the kernel refused the change
		}
	}
	return t.Play(d.ctx, flows)
}

// harms reports whether changes spoil a flow that was good.
func (d *doctor) harms(fix change, socket int) (bool, error) {
	var flows []Flow
	var before []FlowResult
	for _, r := range d.results {
		if d.complaint(r) == "" && r.OK() && !(r.Reached == AtSocket && r.Socket == socket-1) {
			flows, before = append(flows, r.Flow), append(before, r)
		}
	}
	results, err := d.run(flows, fix)
	if err != nil || results == nil {
		return true, err
	}
	for i, r := range results {
		if before[i].Flow.Kind == Asked {
			continue
		}
		if !r.OK() || r.Reached != before[i].Reached {
			return true, nil
		}
	}
	return false, nil
}

// explain finds the cause of a group's symptom by trying, and adds the problem.
func (d *doctor) explain(g []suspect) error {
	if g[0].symptom == unrouted {
		var err error
		if g, err = d.divertedByRoute(g); err != nil || len(g) == 0 {
			return err
		}
	}
	var flows []Flow
	for _, s := range g {
		if len(flows) < 3 {
			flows = append(flows, s.Flow)
		}
	}
	first := g[0]
	p := Problem{Severity: d.severity(first), What: d.what(g), stage: int(first.end.stage), Seen: d.c.story(first.key)}
	if len(first.key.Hops) == 0 { // it was not sent
		p.Seen = []string{fmt.Sprintf("a program that sends to %v gets: %s", first.Flow.To, first.Error)}
	}
	if first.key.Answer {
		p.stage += 10
	}
	for _, s := range g {
		p.Flows = append(p.Flows, s.Flow.ID)
	}
	found := false
	var err error
	for _, r := range d.remedies(first) {
		take := r.take
		if take.do == nil {
			take = r.fix
		}
		if take.do == nil { // a cause that nothing in a twin takes away is told, unless another is confirmed
			if p.Cause == "" {
				p.Cause, p.Why, p.Check = r.cause, r.why, r.check
			}
			continue
		}
		var ok bool
		if ok, err = d.try(first.symptom, flows, take); err != nil {
			return err
		}
		if !ok {
			continue
		}
		// The first cause that is confirmed is told, also where no fix of it helps.
		if !found {
			p.Cause, p.Why, p.Check, p.Confirmed = r.cause, r.why, r.check, true
			found = true
		}
		if r.fix.do == nil {
			continue
		}
		if r.take.do != nil {
			if ok, err = d.try(first.symptom, flows, r.fix); err != nil {
				return err
			} else if !ok {
				continue
			}
		}
		if harm, err := d.harms(r.fix, r.socket); err != nil {
			return err
		} else if harm {
			continue
		}
		p.Cause, p.Why, p.Check = r.cause, r.why, r.check
		p.Fix, p.Price = r.fix.command, r.price
		if r.narrow.do != nil {
			marked := slices.Clone(flows)
			for i := range marked {
				marked[i].Mark = cmp.Or(r.mark, marked[i].Mark)
			}
			if ok, err = d.try(first.symptom, marked, r.narrow); err != nil {
				return err
			} else if ok {
				p.Narrow = r.narrow.command
			}
		}
		break
	}
	if !found && (first.symptom == undiverted || first.symptom == lost) {
		if ok, err := d.absent(g); ok || err != nil {
			return err
		}
	}
	if p.Fix == "" && (first.symptom == lost || first.symptom == undiverted && first.end.mark != 0) {
		ok, err := d.inStages(&p, first, flows)
		if err != nil {
			return err
		}
		found = found || ok
	}
	if !found && first.symptom == lost {
		if err := d.ofAnyRule(&p, first, flows); err != nil {
			return err
		}
	}
	if p.Cause == "" {
		p.Cause, p.Why = "unknown", "no rule, policy rule, setting or socket was found whose absence fixes it"
		p.Check = d.check(first)
	}
	d.add(p)
	return nil
}

// add adds a problem, or its flows to one of the same cause and fix.
func (d *doctor) add(p Problem) {
	for i := range d.problems {
		o := &d.problems[i]
		if o.Cause == p.Cause && o.Fix == p.Fix && o.Why == p.Why && (p.Fix != "" || o.What == p.What) {
			o.Flows = append(o.Flows, p.Flows...)
			if !strings.Contains(o.What, p.What) {
				o.What += "; " + p.What
			}
			if p.Severity == Bad {
				o.Severity = Bad
			}
			return
		}
	}
	d.problems = append(d.problems, p)
}

func (d *doctor) severity(s suspect) Severity {
	switch s.symptom {
	case looped:
		// Redirected connections are often taken to a proxy nearby (redsocks).
		// A resolver may ask others by other means than datagrams to port 53.
		if s.Flow.Kind == Guessed && (!d.guessed(s.Flow, false) && !d.c.Sockets[s.Socket].Transparent ||
			s.Flow.Proto == "udp") {
			return Warn
		}
	case captured, reachable, unrouted, guessed, mistaken:
		return Warn
	case undiverted:
		if s.end.mark == 0 {
			return Warn
		}
	}
	return Bad
}

// sort puts the worst first, and those alike in the order of the packet's way.
func (d *doctor) sort() {
	sortStable(d.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.stage, b.stage))
	})
}

// what says what fails for whom.
func (d *doctor) what(g []suspect) string {
	s := g[0]
	var protos, ports, senders []string
	add := func(list *[]string, text string) {
		if text != "" && !slices.Contains(*list, text) {
			*list = append(*list, text)
		}
	}
	for _, x := range g {
		add(&protos, strings.ToUpper(x.Flow.Proto))
		add(&ports, fmt.Sprint(x.Flow.To.Port()))
		who := "the host's own programs"
		switch {
		case x.Flow.In != "":
			who = fmt.Sprintf("%v on %s", x.Flow.From.Addr(), x.Flow.In)
		case x.Flow.Mark != 0:
			who = fmt.Sprintf("programs with mark 0x%x", x.Flow.Mark)
		case x.Flow.Kind == Exempt || x.Flow.Kind == Guessed:
			who = fmt.Sprintf("programs of user %d and group %d", x.Flow.UID, x.Flow.GID)
		case x.Flow.Kind == AsClient:
			who = fmt.Sprintf("a proxy of the host with a client's address %v", x.Flow.From.Addr())
		case x.Flow.From.Addr().IsValid():
			who = fmt.Sprintf("a program of the host with address %v", x.Flow.From.Addr())
		}
		add(&senders, who)
	}
	if len(ports) > 4 {
		ports = append(ports[:3], "…")
	}
	who := strings.Join(senders, ", ")
	if len(senders) > 3 {
		who = strings.Join(senders[:3], ", ") + ", …"
	}
	to := "the internet"
	if s.Flow.Kind == Service || s.Flow.Kind == Asked || s.Flow.Kind == Borrowed || s.Flow.Kind == AsClient {
		to = s.Flow.To.Addr().String()
	}
	about := fmt.Sprintf("%s of %s to %s (port %s)", strings.Join(protos, " and "), who, to, strings.Join(ports, ", "))
	switch s.symptom {
	case undiverted:
		return fmt.Sprintf("%s is not diverted: it leaves by %s", about, s.Out)
	case looped:
		if s.Flow.Kind == Guessed {
			return fmt.Sprintf("%s, as which the proxy runs (%s), comes back to it: a loop", about,
				d.socketName(s.Socket))
		}
		return fmt.Sprintf("%s, which rules leave out, comes back to the proxy (%s): a loop", about,
			d.socketName(s.Socket))
	case captured:
		return fmt.Sprintf("%s comes to the proxy (%s) and not to the service", about, d.socketName(s.Socket))
	case reachable:
		return fmt.Sprintf("%s reaches the proxy's own port (%s): the proxy would connect to itself, without end", about, d.socketName(s.Socket))
	case mistaken:
		return fmt.Sprintf("%s is redirected to a transparent listener (%s), which takes its own address for the destination", about, d.socketName(s.Socket))
	case hairpin:
		return fmt.Sprintf("%s is sent to %v, in the client's own network, whose answers go past this host", about,
			s.SeenTo)
	case unrouted:
		return fmt.Sprintf("%s has no route, so it does not come to the rules that divert it", about)
	}
	return fmt.Sprintf("%s fails: %s", about, outcomeText(s.FlowResult))
}

func (d *doctor) socketName(i int) string {
	if i < 0 || i >= len(d.c.Sockets) {
		return "no socket of the host"
	}
	s := d.c.Sockets[i]
	return fmt.Sprintf("%s at %s %v", cmp.Or(s.Comm, "a program"), s.Proto, s.Local)
}

func outcomeText(r FlowResult) string {
	switch r.Outcome {
	case Silence:
		return "no answer"
	case Refused:
		return "refused"
	case Reset:
		return "reset after the connection was made"
	case Hang:
		return "it hangs once data is sent"
	case NoRoute:
		return "no route"
	}
	return string(r.Outcome) + " " + r.Error
}
