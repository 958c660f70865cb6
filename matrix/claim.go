package matrix

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
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
	// PF: the rule is one of the pf that FreeBSD has beside ipfw.
	PF bool
	// BesidePF: the rule is one of ipfw's, and pf is switched on beside it.
	BesidePF bool
	// From is the first release of FreeBSD whose manual makes the claim, and Until the first that
	// no longer makes it; 0 for all. A release that is not known is an early one.
	From, Until int
	// Proto and Mode make the flow: who is the client, and what the cell's rule is.
	Proto pfconf.Proto
	Mode  Mode
	// play tests it. The comment of the function begins with the sentence.
	play func(*half, context.Context) error
}

// Claims lists the targets of all claims, family by family.
func Claims() []Target {
	var all []Target
	for _, f := range pfconf.Families {
		for i := range claims {
			c := &claims[i]
			all = append(all, Target{Name: fmt.Sprintf("%v-%s", f, c.kind()), Family: f, Proto: c.Proto, First: c.Mode, Claim: c})
		}
	}
	return all
}

// NeedsPF reports whether the target is about the pf that FreeBSD has beside ipfw.
func (t Target) NeedsPF() bool {
	return t.First == Redirect || t.Claim != nil && (t.Claim.PF || t.Claim.BesidePF)
}

// kind is the targets' name without the family.
func (c *Claim) kind() string { return cmp.Or(c.About, "divert") + "-" + c.Name }

// proves is the sentence with its sources.
func (c *Claim) proves(f pfconf.Family) string {
	var by []string
	for _, firewall := range slices.Sorted(maps.Keys(c.By)) {
		by = append(by, firewall+": "+c.By[firewall])
	}
	return fmt.Sprintf("%v %v: %s [%s]", f, c.Proto, c.Says, strings.Join(by, "; "))
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
	return &finding{Skip, NotClaimed, fmt.Sprintf("the manual of a kernel with %s does not say that %s: %s", k.Firewall, c.Says, c.Not)}
}

// What the runs of claims have in common.

// divertSpec specifies the cell's divert socket.
func (h *half) divertSpec() script.Divert {
	return script.Divert{
		Local: netip.AddrPortFrom(h.Family.Unspecified(), h.Divert),
		Big:   h.big, Queue: h.queue, Spoil: h.spoil, Call: h.call, WriteTo: h.writeTo, Fragments: h.asPieces, Omit: h.omitted(),
	}
}

// openDivert opens the divert socket alone.
func (h *half) openDivert(ctx context.Context, end string) error {
	at := h.remote.request()
	if h.keeps {
		at.close("keeper")
		h.keeps = false
	}
	opened := at.open(end, h.divertSpec())
	if err := at.run(ctx); err != nil {
		return err
	}
	return h.opened(opened)
}

// sends has the client send its line and waits until the other host has seen it.
func (h *half) sends(ctx context.Context) error {
	clientSide, _ := h.sides()
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
func (h *half) passes(ctx context.Context, end string) error {
	return h.passesAs(ctx, end, script.PacketLine)
}

// passesAs is passes with another line than the usual one in the client's place.
func (h *half) passesAs(ctx context.Context, end, line string) error {
	from, to := h.ends()
	if err := h.sends(ctx); err != nil {
		return err
	}
	divert := h.remote.request()
	seen := divert.receive(end)
	sent := divert.relay(end, script.ClientLine, h.rewritten(line))
	divert.fence()
	again := divert.rest(end)
	if err := divert.run(ctx); err != nil {
		return err
	}
	if err := h.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
		return err
	}
	if sent.Fault != nil {
		return failed(NotReinjected, "%s: the kernel does not take the packet back: %s", sent.where, sent.Fault.Text)
	}
	if err := h.arrives(ctx, line, NotReinjected); err != nil {
		return err
	}
	return h.judge(again)
}

// goesOn reinjects the packet that the cell's divert socket holds back, rewritten, and judges that
// it arrives.
func (h *half) goesOn(ctx context.Context) error {
	divert := h.remote.request()
	sent := divert.relay("packet", script.ClientLine, h.rewritten(script.PacketLine))
	divert.fence()
	if err := divert.run(ctx); err != nil {
		return err
	}
	if sent.Fault != nil {
		return failed(NotReinjected, "%s: the kernel does not take the packet back: %s", sent.where, sent.Fault.Text)
	}
	return h.arrives(ctx, script.PacketLine, NotReinjected)
}

// rewritten is what the packet role makes of the client's line.
func (h *half) rewritten(line string) string {
	if h.omit[Rewriting] {
		return script.ClientLine
	}
	return line
}

// arrives judges that exactly the line waits at the server, from the client.
func (h *half) arrives(ctx context.Context, line, missing string) error {
	from, _ := h.ends()
	received, err := h.atServer(ctx)
	if err != nil {
		return err
	}
	w := want{line: line, from: from, missing: missing}
	if h.Proto == pfconf.ICMP {
		w.echo = h.header(0, 0) // of sends
	}
	return h.judge(received, w)
}

// nothingArrives judges that nothing waits at the server; why is what must have
// happen to what was sent.
func (h *half) nothingArrives(ctx context.Context, why string) error {
	received, err := h.atServer(ctx)
	if err != nil {
		return err
	}
	if got := received.Messages; len(got) > 0 {
		return failed(NotLost, "%s: received %q from %v: %s", received.where, got[0].Data, got[0].From, why)
	}
	return unanswered(received)
}

func (h *half) atServer(ctx context.Context) (*asked, error) {
	_, serverSide := h.sides()
	at := serverSide.request()
	received := at.rest("server")
	return received, at.run(ctx)
}

// judgeMatched judges that the rule has matched so many packets, or more of what came in
// pieces, and that so many of them came out behind it; on a kernel whose states have the
// packets, that it made one state.
func (h *half) judgeMatched(ctx context.Context, matched, behind uint64) error {
	at := h.remote.request()
	counters := at.counters(h.label())
	if err := at.run(ctx); err != nil {
		return err
	}
	c := counters.Counters
	if h.kernel.StatesFirst || h.mode == Redirect && h.kernel.RedirectsBeside {
		matched, behind = 1, 1
		c.Matched, c.Done = c.States, c.States
	}
	if h.kernel.MatchesOnly {
		behind = c.Done
	}
	if h.pieces {
		matched = max(matched+1, c.Matched)
	}
	switch {
	case c.Matched != matched:
		return failed(NotCounted, "remote: rule %s matched %d packets, not %d", h.label(), c.Matched, matched)
	case c.Done != behind:
		return failed(NotCounted, "remote: %d packets went on behind rule %s, not %d", c.Done, h.label(), behind)
	}
	return nil
}

// begin opens the ends of the flow, with the divert socket if it is to listen from the beginning,
// runs the control and loads the rule. Controls that a claim has besides are run first; each
// gives its flow.
func (h *half) begin(ctx context.Context, listen bool, more ...func(context.Context) (pfconf.Flow, error)) error {
	var opens []func(*request) *asked
	if listen {
		opens = append(opens, func(remote *request) *asked { return remote.open("packet", h.divertSpec()) })
	} else if h.omit[Unheard] {
		opens = append(opens, func(remote *request) *asked { return remote.open("keeper", h.divertSpec()) })
		h.keeps = true
	}
	if err := h.openEnds(ctx, opens...); err != nil {
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
	c, err := h.packetControl(ctx, listen)
	if err != nil {
		return err
	}
	c.kill = append(c.kill, kill...)
	return h.loadBehind(ctx, c)
}
