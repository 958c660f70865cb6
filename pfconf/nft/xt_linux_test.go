package nft

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/roles/lab/labtest"
)

// iptables runs a program of iptables' in the namespace.
func (n namespace) iptables(t *testing.T, e pfconf.Engine, f pfconf.Family, program string, args ...string) string {
	t.Helper()
	name := map[pfconf.Family]string{pfconf.Inet: "ip", pfconf.Inet6: "ip6"}[f] + "tables-" +
		map[pfconf.Engine]string{pfconf.XT: "nft", pfconf.XTLegacy: "legacy"}[e] + program
	path := labtest.Program(t, name)
	var out []byte
	var err error
	n.do(t, func() { out, err = exec.Command(path, args...).CombinedOutput() })
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

var xtEngines = []pfconf.Engine{pfconf.XT, pfconf.XTLegacy}

// What the driver says of its rules of x_tables is what iptables shows of them, in their order.
func TestXTIsWhatIptablesLists(t *testing.T) {
	for _, e := range xtEngines {
		for _, omit := range [][]Piece{nil, {AnyDirection, PacketMark}} {
			t.Run(fmt.Sprint(e, omit), func(t *testing.T) {
				remote, config := newNamespace(t), testConfig()
				config.Engine, config.Omit = e, omit
				f := remote.open(t, config)
				rules := slices.DeleteFunc(append(everyRule(), nftRules()...),
					func(r pfconf.Rule) bool { return r.Untracked || r.Zone != 0 }) // which x_tables has no words for
				check(t, f.Load(t.Context(), rules))
				for _, family := range pfconf.Families {
					want := map[string][]string{}
					for _, r := range rules {
						compiled, err := config.compile(r)
						check(t, err)
						for _, k := range compiled {
							if k.xt == nil || r.Family != family {
								continue
							}
							if k.xt.Target.Text == "" && k.xt.Target.Name != "" {
								t.Errorf("%v has no text", k)
							}
							want[k.chain.table.name] = append(want[k.chain.table.name],
								fmt.Sprintf("-A %s %v", k.chain.name, k))
						}
					}
					for _, table := range legacyTables {
						var got []string
						for _, l := range strings.Split(remote.iptables(t, e, family, "-save", "-t", table), "\n") {
							if strings.HasPrefix(l, "-A "+xtPrefix) {
								got = append(got, normal(l))
							}
						}
						for i := range want[table] {
							want[table][i] = normal(want[table][i])
						}
						slices.SortStableFunc(got, byChain)
						slices.SortStableFunc(want[table], byChain)
						if diff := gocmp.Diff(got, want[table]); diff != "" {
							t.Errorf("%v %s: iptables (-) and the driver (+) differ:\n%s", family, table, diff)
						}
					}
				}
			})
		}
	}
}

func byChain(a, b string) int { return cmp.Compare(strings.Fields(a)[1], strings.Fields(b)[1]) }

// normal is a rule of iptables-save without its comment, in one order of options and with one form
// of numbers: programs of several versions differ there.
func normal(line string) string {
	words := strings.Fields(line)
	if i := slices.Index(words, "comment"); i > 0 {
		end := i + 3
		for strings.HasPrefix(words[i+2], `"`) && !strings.HasSuffix(words[end-1], `"`) {
			end++
		}
		words = slices.Delete(words, i-1, end)
	}
	return strings.Join(words, " ")
}

// Nothing of the rules of x_tables is left when the driver has closed, or when the journal of one
// that was killed is undone, and the host's own are as they were.
func TestXTLeavesNoTrace(t *testing.T) {
	for _, e := range xtEngines {
		for _, killed := range []bool{false, true} {
			for _, foreign := range []bool{false, true} {
				t.Run(fmt.Sprint(e, killed, foreign), func(t *testing.T) { leavesNoTrace(t, e, killed, foreign) })
			}
		}
	}
}

func leavesNoTrace(t *testing.T, e pfconf.Engine, killed, foreign bool) {
	host, config := newNamespace(t), testConfig()
	config.Engine = e
	var journal []pfconf.Undo
	config.Journal = func(u pfconf.Undo) error {
		journal = append(journal, u)
		return nil
	}
	own := []string{"-t", "mangle", "-A", "PREROUTING", "-p", "tcp", "--dport", "9", "-j", "MARK", "--set-mark", "7"}
	if foreign && e == pfconf.XT {
		host.iptables(t, e, pfconf.Inet, "", own...)
	}
	state := func() (all []string) {
		for _, f := range pfconf.Families {
			for _, table := range legacyTables {
				for _, l := range strings.Split(host.iptables(t, e, f, "-save", "-t", table), "\n") {
					if !strings.HasPrefix(l, "#") && l != "" {
						all = append(all, l[:min(len(l), strings.Index(l+" [", " ["))])
					}
				}
			}
		}
		host.do(t, func() { // not only what iptables shows
			out, err := exec.Command("nft", "list", "tables").Output()
			check(t, err)
			all = append(all, string(out))
		})
		return all
	}
	before := state()
	var f *Firewall
	host.do(t, func() {
		var err error
		f, err = Open(t.Context(), config)
		check(t, err)
	})
	check(t, f.Load(t.Context(), everyRule()))
	if foreign && e == pfconf.XTLegacy { // meanwhile: one that is there before keeps the driver from the table
		host.iptables(t, e, pfconf.Inet, "", own...)
		before = slices.Insert(before, slices.Index(before, "COMMIT"),
			"-A PREROUTING -p tcp -m tcp --dport 9 -j MARK --set-xmark 0x7/0xffffffff")
		err := f.Change(t.Context(), nil, []string{everyRule()[0].Label})
		var theirs *ForeignError
		if !errors.As(err, &theirs) {
			t.Errorf("a change beside another program's rule: %v", err)
		}
	}
	if killed {
		for _, u := range slices.Backward(journal) {
			for range 2 { // what is undone stays so
				host.do(t, func() { check(t, Undo(t.Context(), u)) })
			}
		}
		journal = nil
		f.undo = nil
	}
	check(t, f.Close(t.Context()))
	if diff := gocmp.Diff(before, state()); diff != "" {
		t.Errorf("before (-) and after (+):\n%s", diff)
	}
}

// The features that the rules of x_tables need are asked for, and one that is lacking is named.
func TestXTProbes(t *testing.T) {
	for _, e := range xtEngines {
		config := testConfig()
		config.Engine = e
		f := newNamespace(t).open(t, config)
		for _, feature := range []need.Name{need.XT, need.XTMark, need.XTTProxy, need.XTQueue, need.XTNAT,
			need.XTSocket, need.XTLegacy} {
			if a := f.Probe(feature); a.Support != Yes {
				t.Errorf("%s: %s: %+v", e, feature, a)
			}
		}
		config.Omit = []Piece{TProxyModule}
		lacking := newNamespace(t).open(t, config)
		err := lacking.Load(t.Context(), everyRule()[:1])
		var missing *need.MissingError
		if !errors.As(err, &missing) || missing.Feature != need.XTTProxy {
			t.Errorf("%s: a rule with a target that the kernel lacks: %v", e, err)
		}
		// Linux 6.6.57 had MARK for one family alone.
		config.Omit = []Piece{Mark6}
		lacking = newNamespace(t).open(t, config)
		for _, r := range everyRule() {
			if r.Proto != pfconf.Raw || r.Action != pfconf.DivertTo {
				continue
			}
			err := lacking.Change(t.Context(), []pfconf.Rule{r}, nil)
			switch {
			case r.Family == pfconf.Inet:
				check(t, err)
			case !errors.As(err, &missing) || missing.Feature != need.XTMark:
				t.Errorf("%s: %v without MARK: %v", e, r.Family, err)
			}
		}
	}
}

// eachEngine runs a test with each of them that this build has.
func eachEngine(t *testing.T, test func(*testing.T, Config)) {
	for _, e := range pfconf.Engines {
		if !e.Built() {
			continue
		}
		t.Run(string(e), func(t *testing.T) {
			config := testConfig()
			config.Engine = e
			test(t, config)
		})
	}
}

// ofEngine skips the test of a rule that the engine cannot have; that a change says so, too.
func ofEngine(t *testing.T, config Config, r pfconf.Rule) {
	if err := config.Engine.Check(r); err != nil {
		if _, compiled := config.compile(r); compiled == nil {
			t.Errorf("compiled, and %v", err)
		}
		t.Skip(err)
	}
}

// A rule that stays keeps what it has counted while others come and go, also where a table is
// replaced for that; a Load has it begin anew. A change that is refused takes no other down.
func TestCountersStay(t *testing.T) {
	eachEngine(t, func(t *testing.T, config Config) {
		l := newLab(t)
		f := l.remote.open(t, config)
		for _, family := range pfconf.Families {
			r, other := toRule(family, pfconf.UDP, 7010), toRule(family, pfconf.UDP, 7011)
			var server net.PacketConn
			var client net.Conn
			var err error
			l.remote.do(t, func() {
				listen := net.ListenConfig{Control: transparent}
				server, err = listen.ListenPacket(t.Context(), "udp", r.Divert.String())
			})
			check(t, err)
			defer server.Close()
			check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
			l.local.do(t, func() { client, err = net.Dial("udp", netip.AddrPortFrom(r.To, r.Port).String()) })
			check(t, err)
			defer client.Close()
			sent := uint64(0)
			send := func() {
				t.Helper()
				_, err := client.Write([]byte("x"))
				check(t, err)
				check(t, server.SetReadDeadline(ended()))
				_, _, err = server.ReadFrom(make([]byte, 1))
				check(t, err)
				sent++
				if c := f.counted(t, r.Label); c.Matched != sent || c.Done != sent {
					t.Errorf("%v: %d packets were sent, counted %+v", family, sent, c)
				}
			}
			send()
			check(t, f.Change(t.Context(), []pfconf.Rule{other}, nil))
			send()
			errs := f.ChangeEach(t.Context(), []pfconf.Change{
				{Remove: []string{other.Label}}, {Add: []pfconf.Rule{r}},
				{Add: []pfconf.Rule{toRule(family, pfconf.UDP, 7012)}},
			})
			if errs[0] != nil || errs[1] == nil || errs[2] != nil {
				t.Errorf("%v: changes, of which the second adds what is there: %v", family, errs)
			}
			send()
			check(t, f.Load(t.Context(), []pfconf.Rule{r}))
			sent = 0
			send()
		}
	})
}
