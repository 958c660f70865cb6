package matrix

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// Claim is a sentence of a kernel's manual about packets that are handed to user
// space, or of translated connections, and how it is tested. Each is a target of both families,
// FAMILY-divert-NAME.
type Claim struct {
	Name string
	// About is what stands for "divert" in the targets' names, empty for that.
	About string
	// Says is the sentence, shortened.
	Says string
	// By has where the sentence is from, for each kernel that claims it, by the name of its
	// firewall. For other kernels the target is a SKIP, because of Not.
	By  map[string]string
	Not string
	// PF: the rule is one of OpenBSD's pf, or of the one that FreeBSD has beside ipfw.
	PF bool
	// Second: REMOTE needs a second network, in which LOCAL is the gateway.
	Second bool
	// NFT: the rule is made of nftables' statements alone, and no other engine of Linux is asked.
	NFT bool
	// Between: client, server and rule are in network namespaces of REMOTE's own
	// (script.Middlebox).
	Between bool
	// Only, if not 0, is the one family that has such a thing.
	Only pfconf.Family
	// Lacking is why the rules of an engine do not do it, for those that do not.
	Lacking map[pfconf.Engine]string
	// BPFFrom is the first release of Linux whose programs do it.
	BPFFrom release
	// BesidePF: the rule is one of ipfw's, and pf is switched on beside it.
	BesidePF bool
	// From is the first release of FreeBSD whose manual makes the claim, and Until the first that
	// no longer makes it; 0 for all. A release that is not known is an early one.
	From, Until int
	// Dangerous: it may crash the kernel under test, so it is run only when that is allowed, or
	// from the release Safe on.
	Dangerous bool
	Safe      release
	// Proto and Mode make the flow: who is the client, and what the cell's rule is.
	Proto pfconf.Proto
	Mode  Mode
	// run tests it. The comment of the function begins with the sentence.
	run func(*claimRun, context.Context) error
}

// claimRun is the run of a claim's exchange.
type claimRun struct {
	*exchange
	// keeps: a socket has the divert port before the claim's own; see Unheard.
	keeps bool
	// matches: a match rule of OpenBSD's pf translates before the cell's rule sees the packets.
	matches bool
	// delayed: packets are in a pipe that keeps them for a while, and no fence tells of them.
	delayed bool
	// alone, if not nil, is run before the rule is loaded, on OpenBSD: it loads the rule without
	// its divert, and gives the flow that it played.
	alone func(context.Context) (pfconf.Flow, error)
	// answered: the cell's client was connected.
	answered bool
	// twice: what is forwarded comes to the divert socket when it comes in and when it leaves.
	twice bool
	// fragmented: the kernel's rule meets the client's messages in fragments, see
	// Kernel.MeetsFragments.
	fragmented bool
}

// Claims lists the targets of all claims, family by family.
func Claims() []Target {
	var all []Target
	for _, f := range pfconf.Families {
		for i := range claims {
			c := &claims[i]
			if c.Only != 0 && c.Only != f {
				continue
			}
			all = append(all, Target{Name: fmt.Sprintf("%v-%s", f, c.kind()), Family: f, Proto: c.Proto, First: c.Mode,
				Claim: c})
		}
	}
	return all
}

// NeedsPF reports whether the target is about the pf that FreeBSD has beside ipfw.
func (t Target) NeedsPF() bool {
	return t.First == Redirect && t.Claim.By["ipfw"] != "" || t.Claim != nil && (t.Claim.PF || t.Claim.BesidePF)
}

// Forwards reports whether the target needs a REMOTE with a second network, or one that forwards to
// a third host.
func (t Target) Forwards() bool { return t.NeedsMirror() || t.NeedsGateway() }

// NeedsMirror reports whether the target is about what REMOTE forwards to a third host.
func (t Target) NeedsMirror() bool { return t.First == Forwarded }

// NeedsGateway reports whether the target needs a second network, in which LOCAL is the gateway.
func (t Target) NeedsGateway() bool { return t.Claim != nil && t.Claim.Second }

// kind is the targets' name without the family.
func (c *Claim) kind() string { return cmp.Or(c.About, "divert") + "-" + c.Name }

// proves is the sentence with its sources.
func (c *Claim) proves(f pfconf.Family) string {
	var by []string
	for _, firewall := range slices.Sorted(maps.Keys(c.By)) {
		by = append(by, firewall+": "+c.By[firewall])
	}
	danger := ""
	if c.Dangerous {
		danger = " (dangerous: may crash the kernel, runs with -dangerous)"
		if c.Safe != (release{}) {
			danger = fmt.Sprintf(" (dangerous before FreeBSD %d.%d: crashes the kernel, runs there with -dangerous)", c.Safe[0],
				c.Safe[1])
		}
	}
	return fmt.Sprintf("%v %v: %s [%s]%s", f, c.Proto, c.Says, strings.Join(by, "; "), danger)
}

// skip reports whether the kernel does not claim it.
func (c *Claim) skip(k Kernel) *finding {
	freebsd := k.Firewall == "ipfw"
	switch {
	case c.By[k.Firewall] == "":
	case freebsd && k.Release < c.From:
		return &finding{Skip, NotClaimed, fmt.Sprintf("before FreeBSD %d no manual says that %s", c.From, c.Says)}
	case freebsd && c.Until > 0 && k.Release >= c.Until:
		return &finding{Skip, NotClaimed, fmt.Sprintf("from FreeBSD %d on no manual says that %s", c.Until, c.Says)}
	default:
		return nil
	}
	return &finding{Skip, NotClaimed, fmt.Sprintf("the manual of a kernel with %s does not say that %s: %s",
		k.Firewall, c.Says, c.Not)}
}

// mayCrash reports whether the target may crash the kernel.
func (c *Claim) mayCrash(k Kernel) bool {
	if c.Safe != (release{}) {
		return c.Dangerous && k.Firewall == "ipfw" && k.release().before(c.Safe)
	}
	return c.Dangerous
}

// What the runs of claims have in common.

// openDivert opens the divert socket alone.
func (x *claimRun) openDivert(ctx context.Context, end string) error {
	at := x.remote.request()
	if x.keeps {
		at.close("keeper")
		x.keeps = false
	}
	opened := at.open(end, x.divertSpec())
	if err := at.run(ctx); err != nil {
		return err
	}
	return x.opened(opened)
}

// sends has the client send its line and waits until the other host has seen it.
func (x *claimRun) sends(ctx context.Context) error {
	clientSide, _ := x.sides()
	there := clientSide.request()
	sent := there.send("client", script.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	return unanswered(sent)
}

// passes sends the client's line through the divert socket and judges that it came to
// the server rewritten: the proof that a rule and its socket work.
func (x *claimRun) passes(ctx context.Context, end string) error {
	return x.passesAs(ctx, end, script.PacketLine)
}

// passesAs is passes with another line than the usual one in the client's place.
func (x *claimRun) passesAs(ctx context.Context, end, line string) error {
	if err := x.sends(ctx); err != nil {
		return err
	}
	sent, again, err := x.comesAndGoes(ctx, end, script.ClientLine, x.rewritten(line))
	if err != nil {
		return err
	}
	if err := takenBack(sent); err != nil {
		return err
	}
	if err := x.arrives(ctx, line, NotReinjected); err != nil {
		return err
	}
	return x.judge(again)
}

// comesAndGoes judges that the client's packet comes to the divert socket, which reinjects it with
// new in place of old. It returns how the kernel took it back, and what came there afterwards.
func (x *claimRun) comesAndGoes(ctx context.Context, end, old, new string) (sent, again *stepResult, err error) {
	from, to := x.flowEnds()
	divert := x.remote.request()
	seen := divert.receive(end)
	sent = divert.relay(end, old, new)
	divert.fence()
	again = divert.rest(end)
	if err := divert.run(ctx); err != nil {
		return nil, nil, err
	}
	if err := x.passedBy(ctx, seen); err != nil {
		return nil, nil, err
	}
	return sent, again, x.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered})
}

// takenBack judges that the kernel took back the packet that was reinjected.
func takenBack(sent *stepResult) error {
	if sent.Err != nil {
		return failed(NotReinjected, "%s: the kernel does not take the packet back: %s", sent.where, sent.Err.Text)
	}
	return nil
}

// reinjected reinjects the packet that the cell's divert socket holds back, rewritten, and judges
// that it arrives.
func (x *claimRun) reinjected(ctx context.Context) error {
	divert := x.remote.request()
	sent := divert.relay("packet", script.ClientLine, x.rewritten(script.PacketLine))
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := takenBack(sent); err != nil {
		return err
	}
	return x.arrives(ctx, script.PacketLine, NotReinjected)
}

// rewritten is what the packet role makes of the client's line.
func (x *claimRun) rewritten(line string) string {
	if x.omit[Rewriting] {
		return script.ClientLine
	}
	return line
}

// arrives judges that exactly the line waits at the server, from the client.
func (x *claimRun) arrives(ctx context.Context, line, missing string) error {
	from, _ := x.flowEnds()
	received, err := x.atServer(ctx)
	if err != nil {
		return err
	}
	w := want{line: line, from: from, missing: missing}
	if x.Proto == pfconf.ICMP {
		w.echo = x.header(0, 0) // of sends
	}
	return x.judge(received, w)
}

// nothingArrives judges that nothing waits at the server; why is what must have
// happen to what was sent.
func (x *claimRun) nothingArrives(ctx context.Context, why string) error {
	received, err := x.atServer(ctx)
	if err != nil {
		return err
	}
	if got := received.Messages; len(got) > 0 {
		return failed(NotLost, "%s: received %q from %v: %s", received.where, got[0].Data, got[0].From, why)
	}
	return unanswered(received)
}

func (x *claimRun) atServer(ctx context.Context) (*stepResult, error) {
	_, serverSide := x.sides()
	at := serverSide.request()
	rest := script.Rest{Socket: "server"}
	if x.delayed {
		rest.Wait = pipeWait
	}
	received := at.add(rest, lost)
	return received, at.run(ctx)
}

// judgeMatched judges that the rule has matched so many packets, or more of what came in
// pieces, and that so many of them came out behind it; on a kernel whose states have the
// packets, that it made one state.
func (x *claimRun) judgeMatched(ctx context.Context, matched, behind uint64) error {
	at := x.remote.request()
	counters := at.counters(x.label())
	if err := at.run(ctx); err != nil {
		return err
	}
	c := counters.Counters
	if x.kernel.StatesFirst || x.mode.translates() && x.kernel.RedirectsBeside {
		matched, behind = 1, 1
		c.Matched, c.Done = c.States, c.States
	}
	if x.kernel.MatchesOnly {
		behind = c.Done
	}
	if x.fragmented {
		matched = max(matched+1, c.Matched)
	}
	switch {
	case c.Matched != matched:
		return failed(NotCounted, "remote: rule %s matched %s, not %d", x.label(), pfconf.Count(c.Matched,
			"packet"), matched)
	case c.Done != behind:
		return failed(NotCounted, "remote: behind rule %s went on %s, not %d", x.label(), pfconf.Count(c.Done,
			"packet"), behind)
	}
	return nil
}

// begin opens the ends of the flow, with the divert socket if it is to listen from the beginning,
// runs the control and loads the rule. Controls that a claim has besides are run first; each
// gives its flow.
func (x *claimRun) begin(ctx context.Context, listen bool, more ...func(context.Context) (pfconf.Flow, error)) error {
	var opens []func(*request) *stepResult
	if listen {
		opens = append(opens, func(remote *request) *stepResult { return remote.open("packet", x.divertSpec()) })
	} else if x.omit[Unheard] {
		opens = append(opens, func(remote *request) *stepResult { return remote.open("keeper", x.divertSpec()) })
		x.keeps = true
	}
	if err := x.openEnds(ctx, opens...); err != nil {
		return err
	}
	var kill []pfconf.Flow
	for _, play := range more {
		flow, err := play(ctx)
		if err != nil {
			return err
		}
		kill = append(kill, flow)
	}
	c, err := packet{x.exchange}.control(ctx, listen)
	if err != nil {
		return err
	}
	c.kill = append(c.kill, kill...)
	return x.loadBehindUndiverted(ctx, c, x.alone)
}
