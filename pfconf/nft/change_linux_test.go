package nft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/netlink"
	"pfdivert/pfconf/rtnetlink"
	"pfdivert/roles/lab/labtest"
)

// inForce are the comments of the table's rules, sorted.
func (f *Firewall) inForce(t testing.TB) []string {
	t.Helper()
	f.rx.mu.Lock()
	defer f.rx.mu.Unlock()
	var comments []string
	check(t, f.rx.dumpRules(false, func(m netlink.Message) {
		if c := commentOf(m); c != "" {
			comments = append(comments, c)
		}
	}))
	slices.Sort(comments)
	return comments
}

func wantInForce(t *testing.T, f *Firewall, want ...string) {
	t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(want, f.inForce(t)); diff != "" {
		t.Errorf("rules in force (- want, + got):\n%s", diff)
	}
}

// numbered are n divert-to rules for UDP.
func numbered(prefix string, n int) (rules []pfconf.Rule, labels []string) {
	for i := range n {
		r := toRule(pfconf.Inet, pfconf.UDP, uint16(8000+i))
		r.Label = fmt.Sprintf("%s-%s-%d", pfconf.LabelPrefix, prefix, i)
		rules, labels = append(rules, r), append(labels, r.Label)
	}
	return rules, labels
}

func TestChangeRefuses(t *testing.T) {
	f := newNamespace(t).open(t, testConfig())
	rules, labels := numbered("a", 3)
	check(t, f.Change(t.Context(), rules[:2], nil))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	in := replyRule(pfconf.Inet, pfconf.TCP, 1)
	in.Direction = pfconf.In
	for name, c := range map[string]struct {
		ctx    context.Context
		add    []pfconf.Rule
		remove []string
		want   string
	}{
		"a label that is there": {t.Context(), rules[1:], nil,
			`add rule "regress-a-1": a rule with this label is loaded`},
		"a label twice": {t.Context(), []pfconf.Rule{rules[2], rules[2]}, nil, "label is loaded"},
		"removing nothing": {t.Context(), rules[2:], []string{"regress-none"},
			`remove rule "regress-none": no such rule`},
		"removing twice": {t.Context(), nil, []string{labels[0], labels[0]}, "no such rule"},
		"a rule that is no rule": {t.Context(), []pfconf.Rule{rules[2], {Label: "regress-x"}}, nil,
			"no direction"},
		"divert-reply of what comes in": {t.Context(), []pfconf.Rule{in}, nil, "goes out"},
		"a caller that has gone":        {cancelled, rules[2:], nil, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			err := f.Change(c.ctx, c.add, c.remove)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			wantInForce(t, f, labels[:2]...)
		})
	}
}

// What several callers want goes into one transaction; the one whom the kernel
// refuses gets the error, wholly, and the others their rules.
func TestOneBadChange(t *testing.T) {
	f := newNamespace(t).open(t, testConfig())
	rules, labels := numbered("a", 5)
	check(t, f.Change(t.Context(), rules[:2], nil))
	// Someone else removes a rule of ours.
	r := f.rx.transaction()
	r.delRule(f.rules[labels[0]].parts[0])
	check(t, f.rx.commitAll(r))

	good := &change{ctx: t.Context(), add: rules[2:3]}
	bad := &change{ctx: t.Context(), add: rules[3:4], remove: labels[:1]}
	late := &change{ctx: t.Context(), add: rules[4:5], remove: labels[1:2]}
	generation := f.generation(t)
	f.commitChanges([]*change{good, bad, late})
	if good.err != nil || late.err != nil || !errors.Is(bad.err, unix.ENOENT) {
		t.Errorf("errors %v, %v, %v: want only the second, %v", good.err, bad.err, late.err, unix.ENOENT)
	}
	if n := f.generation(t) - generation; n != 1 {
		t.Errorf("%d transactions took effect, want 1", n)
	}
	wantInForce(t, f, labels[2], labels[4])
}

// What one caller wants for many goes into one transaction too, and each has the own error.
func TestChangeEach(t *testing.T) {
	f := newNamespace(t).open(t, testConfig())
	rules, labels := numbered("a", 20)
	check(t, f.Change(t.Context(), rules[:1], nil))
	changes := []pfconf.Change{{Remove: labels[:1]}, {Remove: []string{"regress-nobody"}},
		{Add: []pfconf.Rule{{Label: "regress-nothing"}}}}
	for _, r := range rules[1:] {
		changes = append(changes, pfconf.Change{Add: []pfconf.Rule{r}})
	}
	generation := f.generation(t)
	for i, err := range f.ChangeEach(t.Context(), changes) {
		if bad := i == 1 || i == 2; (err != nil) != bad {
			t.Errorf("change %d: %v", i, err)
		}
	}
	if n := f.generation(t) - generation; n != 1 {
		t.Errorf("%d transactions took effect, want 1", n)
	}
	wantInForce(t, f, labels[1:]...)
	if errs := f.ChangeEach(t.Context(), nil); len(errs) != 0 {
		t.Errorf("errors of nothing: %v", errs)
	}
}

// generation counts the namespace's transactions.
func (f *Firewall) generation(t *testing.T) uint32 {
	f.rx.mu.Lock()
	defer f.rx.mu.Unlock()
	r := f.rx.request()
	r.nft(own.family, unix.NFT_MSG_GETGEN, 0)
	var id []byte
	check(t, f.rx.Exchange(r.Request, func(m netlink.Message) bool {
		id = netlink.Attribute(attributesOf(m), unix.NFTA_GEN_ID)
		return false
	}))
	return uint32(id[0])<<24 | uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3])
}

// Many callers at once all get what they want, and their own counters.
func TestAtTheSameTime(t *testing.T) { eachEngine(t, atTheSameTime) }

func atTheSameTime(t *testing.T, config Config) {
	f := newNamespace(t).open(t, config)
	rules, labels := numbered("a", 64)
	var callers sync.WaitGroup
	for i := range rules {
		callers.Go(func() {
			for range 5 {
				if err := f.Change(t.Context(), rules[i:i+1], nil); err != nil {
					t.Error(err)
				}
				if c, err := f.Counters(t.Context(), labels[i:i+1]); err != nil || len(c) != 1 {
					t.Error(c, err)
				}
				if err := f.Change(t.Context(), nil, labels[i:i+1]); err != nil {
					t.Error(err)
				}
			}
			if _, err := f.Counters(t.Context(), labels[i:i+1]); err == nil {
				t.Errorf("counters of %s, which has been removed", labels[i])
			}
		})
	}
	callers.Wait()
	if config.Engine == pfconf.NFT {
		wantInForce(t, f)
	}
}

// A transaction that is too large for the socket is done in parts when it is
// many changes', and refused as a whole when it is one's.
func TestTooLarge(t *testing.T) {
	f := newNamespace(t).open(t, testConfig())
	check(t, unix.SetsockoptInt(f.tx.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10))
	rules, labels := numbered("a", 60)
	if err := f.Change(t.Context(), rules, nil); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("got %v, want %v", err, unix.EMSGSIZE)
	}
	wantInForce(t, f)
	var changes []*change
	for i := range rules {
		changes = append(changes, &change{ctx: t.Context(), add: rules[i : i+1]})
	}
	f.commitChanges(changes)
	for _, c := range changes {
		check(t, c.err)
	}
	wantInForce(t, f, labels...)
}

// Where the kernel's echoes do not fit the socket, the handles are learned from
// a listing.
func TestLostEchoes(t *testing.T) {
	f := newNamespace(t).open(t, testConfig())
	check(t, unix.SetsockoptInt(f.tx.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF, 0))
	rules, labels := numbered("a", 100)
	check(t, f.Change(t.Context(), rules, nil))
	wantInForce(t, f, labels...)
	check(t, f.Change(t.Context(), nil, labels[1:]))
	wantInForce(t, f, labels[0])
}

func TestLoadReplaces(t *testing.T) {
	f := newNamespace(t).open(t, testConfig())
	a, _ := numbered("a", 3)
	b, labels := numbered("b", 2)
	check(t, f.Load(t.Context(), a))
	check(t, f.Load(t.Context(), append(b, a[0])))
	wantInForce(t, f, append(labels, a[0].Label)...)
	// A Load that waits together with changes takes its turn among them.
	first, load, last := &change{ctx: t.Context(), add: a[1:2]}, &change{ctx: t.Context(), add: b, all: true},
		&change{ctx: t.Context(), add: a[2:]}
	f.commitChanges([]*change{first, load, last})
	check(t, errors.Join(first.err, load.err, last.err))
	wantInForce(t, f, append(labels, a[2].Label)...)
	check(t, f.Load(t.Context(), nil))
	wantInForce(t, f)
}

// traces is all that a driver could leave on a host.
func (n namespace) traces(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	n.do(t, func() {
		value, err := os.ReadFile(earlyDemux)
		check(t, err)
		fmt.Fprintf(&b, "early demux %s", value)
		value, err = os.ReadFile(localnetPath("lo"))
		check(t, err)
		fmt.Fprintf(&b, "route_localnet %s", value)
		c := route(t)
		for _, f := range []uint8{unix.AF_INET, unix.AF_INET6} {
			rules, err := c.Rules(f)
			check(t, err)
			fmt.Fprintln(&b, rules)
			routes, err := c.Routes(f, Table)
			check(t, err)
			fmt.Fprintln(&b, routes)
		}
		s, err := openSocket()
		check(t, err)
		defer s.close()
		if err := s.dumpRules(false, func(netlink.Message) {}); err == nil {
			fmt.Fprintln(&b, "table")
		} else if !errors.Is(err, unix.ENOENT) {
			t.Error(err)
		}
		entries, err := s.dumpEntries()
		check(t, err)
		fmt.Fprintln(&b, len(entries), "states")
	})
	return b.String()
}

// preparedRules are those for which the host itself is changed.
func preparedRules() []pfconf.Rule {
	local, remote, fake := addr(pfconf.Inet, 1, 2), addr(pfconf.Inet, 1, 1), addr(pfconf.Inet, 2, 9)
	r := pfconf.Rule{Label: "regress-output", Direction: pfconf.Out, Family: pfconf.Inet, Proto: pfconf.TCP,
		From: remote, To: local, Port: 7300, Action: pfconf.DivertTo,
		Divert: netip.AddrPortFrom(pfconf.Inet.Loopback(), 7300)}
	again, rdr := r, r
	again.Label, again.Port = "regress-output-too", 7301
	rdr.Label, rdr.Direction, rdr.Action, rdr.From, rdr.To = "regress-loopback", pfconf.In, pfconf.RdrTo, local, fake
	return []pfconf.Rule{r, again, rdr}
}

func TestClosePutsBack(t *testing.T) {
	n := newNamespace(t)
	before := n.traces(t)
	c := testConfig()
	c.Interface = "lo"
	f := n.open(t, c)
	check(t, f.Load(t.Context(), everyRule()))
	loaded := n.traces(t)
	if loaded == before {
		t.Fatal("an open firewall left no traces that this test sees")
	}
	n.do(t, func() {
		for _, r := range preparedRules() {
			check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
		}
	})
	if now := n.traces(t); !strings.Contains(now, "route_localnet 1") || !strings.Contains(now, "{10.188.1.2/32 1 ") {
		t.Errorf("what rules need of the host was not prepared: %s", now)
	}
	n.do(t, func() { check(t, f.Close(t.Context())) })
	if diff := cmp.Diff(before, n.traces(t)); diff != "" {
		t.Errorf("after Close (+) it is not as before (-):\n%s", diff)
	}
	if err := f.Change(t.Context(), everyRule()[:1], nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Change after Close: %v", err)
	}
	if _, err := f.States(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("States after Close: %v", err)
	}
}

// A later run fixes by the journal what a killed one left, as often as it
// likes, and a second driver does not take what the first one has.
func TestUndo(t *testing.T) {
	n := newNamespace(t)
	before := n.traces(t)
	var journal []pfconf.Undo
	c := testConfig()
	c.Journal = func(u pfconf.Undo) error {
		journal = append(journal, u)
		return nil
	}
	c.Interface = "lo"
	killed := n.open(t, c)
	n.do(t, func() { check(t, killed.Load(t.Context(), append(everyRule(), preparedRules()...))) })
	killed.undo = nil

	n.do(t, func() {
		var taken *TakenError
		if _, err := Open(t.Context(), testConfig()); !errors.As(err, &taken) {
			t.Errorf("a second Open: %v, want a TakenError", err)
		}
		for range 2 {
			for _, u := range slices.Backward(journal) {
				check(t, Undo(t.Context(), u))
			}
		}
	})
	if diff := cmp.Diff(before, n.traces(t)); diff != "" {
		t.Errorf("after Undo (+) it is not as before (-):\n%s", diff)
	}
	for _, u := range []pfconf.Undo{
		{Do: "nft/sysctl", Args: []string{"net.ipv4.ip_forward", "1"}}, {Do: undoSysctl, Args: []string{"x"}},
		{Do: undoRoute, Args: []string{"x"}}, {Do: undoLocalnet, Args: []string{"../x", "1"}},
		{Do: undoLocalnet, Args: []string{"lo", "yes"}}, {Do: undoRule}, {Do: undoTable, Args: []string{"filter"}},
	} {
		if err := Undo(t.Context(), u); err == nil || !strings.Contains(err.Error(), "not a step") {
			t.Errorf("undo %v: %v", u, err)
		}
	}
}

// Whatever someone else has of what the driver wants, Open says so and
// changes nothing.
func TestTaken(t *testing.T) {
	prefix := testConfig().Fakes[0]
	for name, take := range map[string]func() error{
		"table": func() error {
			s, err := openSocket()
			if err != nil {
				return err
			}
			r := s.transaction()
			r.newTable(own, exclusive)
			return errors.Join(s.commitAll(r), s.close())
		},
		"policy rule": func() error { return route(t).AddRule(policyRule(pfconf.Inet6)) },
		"route":       func() error { return route(t).AddRoute(localRoute(prefix)) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNamespace(t)
			n.do(t, func() { check(t, take()) })
			before := n.traces(t)
			n.do(t, func() {
				var taken *TakenError
				if _, err := Open(t.Context(), testConfig()); !errors.As(err, &taken) ||
					!strings.Contains(taken.What, name) {
					t.Errorf("Open: %v, want a TakenError for the %s", err, name)
				}
			})
			if diff := cmp.Diff(before, n.traces(t)); diff != "" {
				t.Errorf("a failed Open left (+):\n%s", diff)
			}
		})
	}
}

// TestForeignRule: a policy rule that is no run's is named as ip(8) shows it, and the hint's
// command deletes that rule alone.
func TestForeignRule(t *testing.T) {
	labtest.Program(t, "ip")
	for _, c := range []struct {
		family     pfconf.Family
		rule, text string
	}{
		{pfconf.Inet, "pref 10 fwmark 0x70660076 blackhole", ": 10: from all fwmark 0x70660076 blackhole"},
		{pfconf.Inet6, "pref 11 not to fd00::/64 fwmark 0x70660076/0x70ffffff iif lo table main proto 99",
			": 11: not from all to fd00::/64 fwmark 0x70660076/0x70ffffff iif lo lookup main proto 99"},
		{pfconf.Inet, "pref 12 from 10.1.0.0/16 table 28774", ": 12: from 10.1.0.0/16 lookup 28774"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			n := newNamespace(t)
			n.do(t, func() {
				ip := "ip"
				if c.family == pfconf.Inet6 {
					ip = "ip -6"
				}
				sh := func(command string) {
					if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
						t.Errorf("%s: %v\n%s", command, err, out)
					}
				}
				before, err := route(t).Rules(afOf(c.family))
				check(t, err)
				sh(ip + " rule add " + c.rule[:len("pref 10")] + " fwmark 0x1 table main") // found first by it
				sh(ip + " rule add " + c.rule)
				var foreign *ForeignRuleError
				if _, err := Open(t.Context(), testConfig()); !errors.As(err, &foreign) ||
					!strings.HasSuffix(err.Error(), c.text) {
					t.Fatalf("Open: %v, want a ForeignRuleError%s", err, c.text)
				}
				typed, ok := strings.CutPrefix(foreign.Hint(), "on that host: ")
				if !ok {
					t.Fatalf("hint: %s", foreign.Hint())
				}
				sh(typed)
				after, err := route(t).Rules(afOf(c.family))
				check(t, err)
				marked := func(r rtnetlink.PolicyRule) bool { return r.Mark == 1 }
				if len(after) != len(before)+1 || !slices.ContainsFunc(after, marked) {
					t.Errorf("%s left %v", typed, after)
				}
			})
		})
	}
}

// TestLoopbackDown: Open and Ask, which is check-setup's, say alike that lo is down, and Open
// changes nothing.
func TestLoopbackDown(t *testing.T) {
	n := newNamespace(t)
	n.do(t, func() {
		lo, err := net.InterfaceByName("lo")
		check(t, err)
		check(t, route(t).SetDown(lo.Index))
	})
	before := n.traces(t)
	n.do(t, func() {
		_, opened := Open(t.Context(), testConfig())
		_, asked := Ask(t.Context(), testConfig())
		for what, err := range map[string]error{"Open": opened, "Ask": asked} {
			var down *LoopbackDownError
			if !errors.As(err, &down) || !strings.Contains(down.Hint(), "ip link set lo up") {
				t.Errorf("%s: %v, want a LoopbackDownError", what, err)
			}
		}
	})
	n.do(t, func() {
		c := testConfig()
		c.Fakes = c.Fakes[:1] // IPv4 alone can do without
		f, err := Open(t.Context(), c)
		check(t, err)
		check(t, f.Close(t.Context()))
	})
	if diff := cmp.Diff(before, n.traces(t)); diff != "" {
		t.Errorf("a failed Open left (+):\n%s", diff)
	}
}

// Without IPv6 the driver does what can be done without.
func TestWithoutIPv6(t *testing.T) {
	n := newNamespace(t)
	n.do(t, func() {
		check(t, os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0))
	})
	before := n.traces(t)
	f := n.open(t, testConfig())
	if got := f.Families(); !slices.Equal(got, []pfconf.Family{pfconf.Inet}) {
		t.Errorf("families %v, want inet", got)
	}
	check(t, f.Change(t.Context(), []pfconf.Rule{toRule(pfconf.Inet, pfconf.TCP, 1)}, nil))
	if err := f.Change(t.Context(), []pfconf.Rule{toRule(pfconf.Inet6, pfconf.TCP, 1)}, nil); err == nil {
		t.Error("an inet6 rule was loaded")
	}
	check(t, f.Close(t.Context()))
	if diff := cmp.Diff(before, n.traces(t)); diff != "" {
		t.Errorf("after Close (+) it is not as before (-):\n%s", diff)
	}
}

func TestProbe(t *testing.T) {
	f := newNamespace(t).open(t, testConfig())
	for _, feature := range []need.Name{need.NFTables, need.TProxy, need.NFQueue, need.CTNetlink, need.IPv6} {
		if a := f.Probe(feature); a.Support != Yes || a.Err != nil {
			t.Errorf("%s: %+v; this kernel has it", feature, a)
		}
	}
	if a := f.Probe("flux"); a.Support != Unknown || a.Err == nil {
		t.Errorf("flux: %+v", a)
	}
	if a := f.probe(missing{}); a.Support != No || !errors.Is(a.Err, unix.ENOENT) {
		t.Errorf("an expression that no kernel has: %+v", a)
	}
	wantInForce(t, f)
}

// missing is a statement with an expression that no kernel has.
type missing struct{}

func (missing) String() string    { return "missing" }
func (missing) encode(r *request) { r.Expression("missing", func() {}) }

func TestNotPermitted(t *testing.T) {
	if _, err := os.Stat("/proc/self/ns/user"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs capabilities to give up")
	}
	n := newNamespace(t)
	n.do(t, func() {
		var all, few [2]unix.CapUserData
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		check(t, unix.Capget(&header, &all[0]))
		few = all
		few[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		check(t, unix.Capset(&header, &few[0]))
		defer func() { check(t, unix.Capset(&header, &all[0])) }()
		_, err := Open(t.Context(), testConfig())
		var absent *need.MissingError
		if !errors.Is(err, fs.ErrPermission) || errors.As(err, &absent) {
			t.Errorf("got %v, want a permission error", err)
		}
	})
}

// With a piece left out, FAKE's packets do not arrive, and the counters are
// those by which the fault is told (two counters around each action).
func TestOmit(t *testing.T) {
	for _, c := range []struct {
		piece Piece
		to    pfconf.Counters // after one datagram to a divert-to rule
	}{
		{PacketMark, pfconf.Counters{Matched: 1, Done: 1}},
		{PolicyRule, pfconf.Counters{Matched: 1, Done: 1}},
		{LocalRoute, pfconf.Counters{Matched: 1, Done: 1}},
		{TProxy, pfconf.Counters{Matched: 1, Done: 1}},
	} {
		t.Run(string(c.piece), func(t *testing.T) {
			l := newLab(t)
			config := testConfig()
			config.Omit = []Piece{c.piece}
			f := l.remote.open(t, config)
			r := toRule(pfconf.Inet, pfconf.UDP, 7005)
			check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
			var server net.PacketConn
			var client, control net.Conn
			var err error
			l.remote.do(t, func() {
				listen := net.ListenConfig{Control: transparent}
				server, err = listen.ListenPacket(t.Context(), "udp", r.Divert.String())
			})
			check(t, err)
			defer server.Close()
			l.local.do(t, func() { client, err = net.Dial("udp", netip.AddrPortFrom(r.To, r.Port).String()) })
			check(t, err)
			defer client.Close()
			_, err = client.Write([]byte("lost"))
			check(t, err)
			// A later packet over the same path has arrived, so this one would have.
			after, control := udpPair(t, l.local, l.remote, pfconf.Rule{To: addr(pfconf.Inet, 1, 1), Port: 7006})
			_, err = control.Write([]byte("after"))
			check(t, err)
			check(t, after.SetReadDeadline(ended()))
			_, err = after.Read(make([]byte, 10))
			check(t, err)
			if got := f.counted(t, r.Label); got != c.to {
				t.Errorf("counters %+v, want %+v", got, c.to)
			}
			check(t, server.SetReadDeadline(aMoment()))
			if n, _, err := server.ReadFrom(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("received %d bytes, %v", n, err)
			}
		})
	}
}

// The pieces of divert-reply: of two echo requests none is answered.
func TestOmitReply(t *testing.T) {
	for piece, want := range map[Piece]pfconf.Counters{
		CTMark:     {Matched: 2},
		Back:       {Matched: 2, Done: 2},
		PacketMark: {Matched: 2, Done: 2, Replies: 2},
	} {
		t.Run(string(piece), func(t *testing.T) {
			l := newLab(t)
			config := testConfig()
			config.Omit = []Piece{piece}
			f := l.remote.open(t, config)
			r := replyRule(pfconf.Inet, pfconf.ICMP, 0)
			check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
			client := l.raw(t, pfconf.Inet, r.From)
			for id := range 2 {
				ping(t, client, pfconf.Inet, r.To, 1+id)
			}
			// An answer to REMOTE itself has come, so those to FAKE would have.
			fence := l.raw(t, pfconf.Inet, addr(pfconf.Inet, 1, 1))
			ping(t, fence, pfconf.Inet, r.To, 3)
			pong(t, fence)
			if got := f.counted(t, r.Label); got != want {
				t.Errorf("counters %+v, want %+v", got, want)
			}
			check(t, client.SetReadDeadline(aMoment()))
			if n, _, err := client.ReadFrom(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("received %d bytes, %v", n, err)
			}
		})
	}
}

func TestOmitKernelEchoAndEarlyDemux(t *testing.T) {
	n := newNamespace(t)
	config := testConfig()
	config.Omit = []Piece{KernelEcho, EarlyDemux}
	f := n.open(t, config)
	r := toRule(pfconf.Inet6, pfconf.ICMP, 0)
	check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
	wantInForce(t, f, r.Label)
	if got := n.traces(t); !strings.HasPrefix(got, "early demux 1") {
		t.Error(got)
	}
}
