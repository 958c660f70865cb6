package matrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"pfdivert/matrix/evidence"
	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// network is two hosts that are no more than values: datagrams and raw packets go from one to the
// other, and REMOTE's rules divert them as nftables does. A test breaks it in one place.
type network struct {
	mu       sync.Mutex
	sockets  map[string]*fakeSocket // by cell and name
	rules    map[string]pfconf.Rule // in force, by label
	counters map[string]*pfconf.Counters
	ports    uint16 // the last that the kernel gave out
	breakage breakage
}

// breakage is what is wrong with a network.
type breakage struct {
	noRule     bool                     // the rule diverts nothing
	uncounted  bool                     // it counts nothing
	always     bool                     // packets are diverted without a rule
	twice      bool                     // every packet comes twice
	garbled    bool                     // payloads change on their way
	translated bool                     // the destination is not told to the socket
	owned      []string                 // FAKE addresses that REMOTE has
	refuse     *script.Error            // of changes of rules
	steps      map[string]*script.Error // by the name of the step, on REMOTE
	lost       bool                     // the connection to REMOTE
	firewall   string
	kernel     string // its name and release
	pfOn       bool   // pf is switched on beside ipfw
	cut        bool   // hosts show half of what they are asked for
}

type fakeSocket struct {
	ends        script.Ends
	local, peer netip.AddrPort
	inbox       []script.Message
}

// fakeHost is one end of a network.
type fakeHost struct {
	*network
	remote bool
}

func newNetwork(b breakage) (Hosts, *network) {
	n := &network{sockets: map[string]*fakeSocket{}, rules: map[string]pfconf.Rule{},
		counters: map[string]*pfconf.Counters{}, ports: 40000, breakage: b}
	return Hosts{Local: fakeHost{n, false}, Remote: fakeHost{n, true}}, n
}

func (h fakeHost) Setup(context.Context, script.Setup) (script.Facts, error) {
	f := script.Facts{System: "linux", Kernel: "Linux 6.18", Firewall: "nftables", KeepsCounters: true}
	if h.breakage.firewall != "" {
		f.Firewall = h.breakage.firewall
	}
	if h.breakage.kernel != "" {
		f.Kernel = h.breakage.kernel
	}
	f.PFOn = h.breakage.pfOn
	if h.remote {
		f.Owned = h.breakage.owned
	}
	return f, nil
}

func (h fakeHost) Lost() bool { return h.remote && h.breakage.lost }

func (h fakeHost) Log(_ context.Context, cell string) ([]script.Transcript, error) {
	return []script.Transcript{{End: "server", Text: "log of " + cell + "\n"}}, nil
}

func (h fakeHost) Look(_ context.Context, l script.Look) (evidence.Record, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := evidence.Record{Cut: h.breakage.cut}
	for _, label := range l.Labels {
		after := *h.counters[label]
		c.Rules = append(c.Rules, evidence.FilterRule{Label: label, After: &after})
	}
	return c, nil
}

func (h fakeHost) Change(_ context.Context, changes []script.RuleChange) ([]*script.Error, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	faults := make([]*script.Error, len(changes))
	for i, c := range changes {
		if len(c.Add) > 0 && h.breakage.refuse != nil {
			faults[i] = h.breakage.refuse
			continue
		}
		for _, label := range c.Remove {
			delete(h.rules, label)
		}
		for _, r := range c.Add {
			h.rules[r.Label], h.counters[r.Label] = r, &pfconf.Counters{}
		}
	}
	return faults, nil
}

func (h fakeHost) Script(_ context.Context, s script.Script) ([]script.Outcome, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Lost() {
		return nil, &script.LostError{Err: errors.New("it is gone")}
	}
	out := make([]script.Outcome, len(s.Steps))
	wrong := false
	for i, step := range s.Steps {
		if s.Hold && wrong && script.Clears(step) {
			for ; i < len(out); i++ {
				out[i].Err = &script.Error{Code: script.CodeHeld}
			}
			return out, nil
		}
		out[i] = h.step(s.Cell, step)
		wrong = wrong || !script.Satisfied(step, &out[i])
	}
	return out, nil
}

func (h fakeHost) step(cell string, step script.Step) (out script.Outcome) {
	if f := h.breakage.steps[step.Name()]; f != nil && h.remote {
		return script.Outcome{Err: f}
	}
	key := func(name string) string { return fmt.Sprint(cell, " ", h.remote, " ", name) }
	if st, ok := step.(script.SocketStep); ok && h.sockets[key(st.On())] == nil {
		return script.Outcome{Err: &script.Error{Code: script.CodeSkipped, Text: "skipped"}}
	}
	take := func(name string) (all []script.Message) {
		s := h.sockets[key(name)]
		all, s.inbox = s.inbox, nil
		return all
	}
	switch st := step.(type) {
	case script.Open:
		s := &fakeSocket{}
		switch spec := st.Spec.(type) {
		case script.Datagram:
			s.ends = spec.Ends
		case script.RawIP:
			s.ends = spec.Ends
		}
		s.local, s.peer = s.ends.Local, s.ends.Remote
		if _, raw := st.Spec.(script.RawIP); s.local.Port() == 0 && !raw {
			h.ports++
			s.local = netip.AddrPortFrom(s.local.Addr(), h.ports)
		}
		h.sockets[key(st.Socket)] = s
		out.Local = s.local
	case script.Connect:
		out.Local, out.Peer = h.sockets[key(st.Socket)].local, h.sockets[key(st.Socket)].peer
	case script.Send:
		s := h.sockets[key(st.Socket)]
		h.send(s.local, s.peer, st.Data, s.ends.Role == script.Client)
	case script.Receive:
		s := h.sockets[key(st.Socket)]
		if len(s.inbox) == 0 {
			return script.Outcome{Err: &script.Error{Code: script.CodeNothing, Text: "nothing arrived"}}
		}
		out.Messages, s.inbox = s.inbox[:1], s.inbox[1:]
		s.peer = out.Messages[0].From
	case script.Rest:
		out.Messages = take(st.Socket)
	case script.Close:
		delete(h.sockets, key(st.Socket))
	case script.Counters:
		c := *h.counters[st.Label]
		out.Counters = &c
	case script.Fence, script.Kill:
	default:
		panic(fmt.Sprintf("the fake host knows no step %s", step.Name()))
	}
	return out
}

// send delivers a packet. REMOTE's rules decide about the packets of clients; what a server answers
// comes to a foreign address only if a rule brings replies back.
func (n *network) send(from, to netip.AddrPort, data string, byClient bool) {
	b := n.breakage
	if b.garbled {
		data = "garbled\n"
	}
	message := script.Message{Data: []byte(data), From: from, To: to}
	fake := func(a netip.AddrPort) bool { return testFakes.Contains(a.Addr()) }
	at := to
	if byClient || fake(to) {
		rule, c := n.match(from, to, byClient)
		switch {
		case byClient && fake(to) && rule == nil && !b.always:
			return // no one has FAKE
		case byClient && fake(to) && rule != nil:
			at = rule.Divert
		case byClient && fake(to):
			at = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
		case fake(to) && rule == nil && !b.always:
			return
		}
		if c != nil && !b.uncounted {
			if byClient {
				c.Matched, c.Done = c.Matched+1, c.Done+1
			} else {
				c.Replies++
			}
		}
	}
	if b.translated {
		message.To = at
	}
	copies := 1
	if b.twice {
		copies = 2
	}
	for _, s := range n.sockets {
		// A raw server of a diverted packet is bound to FAKE; see Kernel.RawOnFake.
		bound := s.local == at || to.Port() == 0 && s.local == to
		if bound && (s.ends.Role == script.Server || s.peer == from) {
			for range copies {
				s.inbox = append(s.inbox, message)
			}
		}
	}
}

// match finds the rule for a packet of the client, or for an answer to one.
func (n *network) match(from, to netip.AddrPort, byClient bool) (*pfconf.Rule, *pfconf.Counters) {
	if !byClient {
		from, to = to, from
	}
	for label, r := range n.rules {
		if !n.breakage.noRule && r.From == from.Addr() && r.To == to.Addr() && r.Port == to.Port() {
			return &r, n.counters[label]
		}
	}
	return nil, nil
}

var testFakes = netip.MustParsePrefix("10.208.0.0/12")

// testOptions are those of a run on a network.
func testOptions() Options {
	return Options{Families: map[pfconf.Family]Addresses{pfconf.Inet: {
		Local: netip.MustParseAddr("10.188.1.1"), Remote: netip.MustParseAddr("10.188.1.2"),
		Locals: netip.MustParsePrefix("10.192.0.0/12"), Fakes: testFakes,
	}}}
}

// onNetwork runs targets on a network and returns their results by name.
func onNetwork(t *testing.T, b breakage, targets []Target, change ...func(*Options)) map[string]Result {
	t.Helper()
	hosts, _ := newNetwork(b)
	opt := testOptions()
	for _, c := range change {
		c(&opt)
	}
	var mu sync.Mutex
	results := map[string]Result{}
	err := Run(t.Context(), hosts, Plan{Targets: targets}, opt, func(r Result) {
		mu.Lock()
		defer mu.Unlock()
		results[r.Name] = r
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(targets) {
		t.Errorf("%d results of %d targets", len(results), len(targets))
	}
	return results
}

// datagramTargets are those whose packets the network knows.
func datagramTargets(t *testing.T) []Target {
	all := slices.DeleteFunc(Targets(), func(t Target) bool {
		known := t.Proto == pfconf.UDP || t.Proto == pfconf.Raw
		return t.Family != pfconf.Inet || !known || t.reuse() || t.First.IsDivertPacket()
	})
	if len(all) < 6 {
		t.Fatalf("%d targets", len(all))
	}
	return all
}

// TestKnownUnexplained: where nothing is explained, as of the faults of a BSD's lab, or by half of
// what the hosts show, as on a very slow machine, a failure counts as known when the kernel is
// known for one by its cause; where it is explained, the cause decides.
func TestKnownUnexplained(t *testing.T) {
	past := map[string]*script.Error{"relay": {Code: script.CodeSkipped, Text: "there is no packet"}}
	packets := slices.DeleteFunc(Targets(), func(t Target) bool { return t.Name != "inet-args-udp-packet-in" })
	for _, c := range []struct {
		kernel     string
		pfOn       bool
		noEvidence bool
		cut        bool
		want       Verdict
	}{
		{"FreeBSD 15.1-RELEASE-p1", true, true, false, XFail},
		{"FreeBSD 15.1-RELEASE-p1", true, false, false, Fail},
		{"FreeBSD 15.1-RELEASE-p1", true, false, true, XFail},
		{"FreeBSD 15.1-RELEASE-p1", false, true, false, Fail},
		{"FreeBSD 15.1-RELEASE-p1", false, false, true, Fail},
		{"FreeBSD 13.2-RELEASE", true, true, false, Fail},
	} {
		b := breakage{firewall: "ipfw", kernel: c.kernel, pfOn: c.pfOn, steps: past, cut: c.cut}
		got := onNetwork(t, b, packets, func(o *Options) { o.NoEvidence = c.noEvidence })[packets[0].Name]
		if got.Verdict != c.want || got.Reason != NotRewritten {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestKnownAgain: a failure that is known by its cause is looked at in each run of a target,
// however many there are, and few runs' evidence is kept.
func TestKnownAgain(t *testing.T) {
	const rounds = 3 * evidencePerTarget
	hosts, _ := newNetwork(breakage{firewall: "ipfw", kernel: "FreeBSD 15.1-RELEASE-p1", pfOn: true, cut: true,
		steps: map[string]*script.Error{"relay": {Code: script.CodeSkipped, Text: "there is no packet"}}})
	packets := slices.DeleteFunc(Targets(), func(t Target) bool { return t.Name != "inet-args-udp-packet-in" })
	var mu sync.Mutex
	got, kept := map[Verdict]int{}, 0
	err := Run(t.Context(), hosts, Plan{Targets: packets, Rounds: rounds}, testOptions(), func(r Result) {
		mu.Lock()
		defer mu.Unlock()
		if got[r.Verdict]++; r.Evidence != nil {
			kept++
		}
	})
	if err != nil || got[XFail] != rounds || kept != evidencePerTarget {
		t.Errorf("%v: %v, and evidence of %d", err, got, kept)
	}
}

// TestFakeHost runs whole test cases without a system call: a missing datagram, a rule that does
// nothing, a lost agent and their like become the verdicts that they must.
func TestFakeHost(t *testing.T) {
	eperm := &script.Error{Code: "EPERM", Text: "not allowed"}
	for name, c := range map[string]struct {
		breakage breakage
		want     string            // of every target
		but      map[string]string // of those whose names contain the key
	}{
		"nothing": {breakage{}, "PASS", nil},
		"a rule that diverts nothing": {breakage{noRule: true}, "FAIL not-counted", map[string]string{
			"-to": "FAIL not-delivered", "reply-to": "FAIL no-reply",
		}},
		"a rule that does not count":               {breakage{uncounted: true}, "FAIL not-counted", nil},
		"packets that are diverted without a rule": {breakage{always: true}, "FAIL control-delivered", nil},
		"packets that come twice": {breakage{twice: true}, "FAIL duplicate", map[string]string{
			// The second copy of the control is what is there in place of the client's.
			"udp-reply": "FAIL wrong-address", "udp-reply-to": "FAIL wrong-address",
		}},
		"payloads that change":   {breakage{garbled: true}, "FAIL wrong-data", nil},
		"a rule that is refused": {breakage{refuse: eperm}, "ERROR rule-refused", nil},
		"a kernel without the feature": {breakage{refuse: &script.Error{Code: script.CodeMissing,
			Text: "no such thing"}},
			"SKIP no-feature", nil},
		"FAKE on REMOTE": {breakage{owned: []string{"10.208.0.1"}}, "ERROR fake-owned", nil},
		"a lost agent":   {breakage{lost: true}, "ERROR agent-lost", nil},
		"a socket that can't be opened": {breakage{steps: map[string]*script.Error{"open": eperm}},
			"ERROR socket-failed", nil},
		"a question that is not answered": {breakage{steps: map[string]*script.Error{"counters": eperm}},
			"ERROR question-failed", nil},
	} {
		for target, r := range onNetwork(t, c.breakage, datagramTargets(t)) {
			want, longest := c.want, 0
			for part, w := range c.but {
				if strings.HasSuffix(target, part) && len(part) > longest {
					want, longest = w, len(part)
				}
			}
			if got := strings.TrimSpace(string(r.Verdict) + " " + r.Reason); got != want {
				t.Errorf("%s: %s: %s, want %s (%s)", name, target, got, want, r.Detail)
			}
			if r.Verdict != Pass && r.Verdict != Skip && r.Explanation == nil {
				t.Errorf("%s: %s: %s has no explanation", name, target, r.Reason)
			}
		}
	}
}

// TestUnknownKernel: a run does not begin when it is not known what to expect.
func TestUnknownKernel(t *testing.T) {
	hosts, _ := newNetwork(breakage{firewall: "wall"})
	err := Run(t.Context(), hosts, Plan{Targets: Targets()}, Options{}, func(Result) { t.Error("a target was run") })
	if err == nil || !strings.Contains(err.Error(), `"wall"`) {
		t.Error(err)
	}
}
