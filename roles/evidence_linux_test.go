package roles

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/report"
	"pfdivert/roles/testbed"
)

// looked runs targets in a lab with pieces left out and gives their results.
func looked(t *testing.T, opt matrix.Options, plan matrix.Plan, names ...string) map[string]matrix.Result {
	t.Helper()
	p := reach(t, testbed.Options{})
	all := p.Options
	all.Omit, all.Evidence, all.Capture = opt.Omit, opt.Evidence, opt.Capture
	var err error
	if plan.Targets, err = matrix.Select(names); err != nil {
		t.Fatal(err)
	}
	return runPlan(t, p, plan, all)
}

// answer returns what a host said to the command that begins so.
func answer(c evidence.Record, command string) string {
	for _, a := range c.Answers {
		if strings.HasPrefix(a.Command, command) {
			return a.Text
		}
	}
	return "not asked: " + command
}

func moved(c evidence.Record, name string) int64 {
	for _, m := range c.Moved {
		if m.Name == name {
			return m.By
		}
	}
	return 0
}

// TestEvidence: without the policy rule the rule serves the packet and routing throws it away,
// and the evidence of both hosts shows that, from before anything was cleared away.
func TestEvidence(t *testing.T) {
	const udp, tcp6 = "inet-args-udp-to", "inet6-args-tcp-to"
	results := looked(t, matrix.Options{Omit: []string{"policy-rule"}, Capture: true}, matrix.Plan{}, udp, tcp6)
	for _, name := range []string{udp, tcp6} {
		r := results[name]
		e := r.Evidence
		if r.Verdict != matrix.Fail || e == nil {
			t.Fatalf("%v: evidence %v", r, e)
		}
		if m := slices.Concat(e.Local.Missing, e.Remote.Missing); len(m) > 0 {
			t.Errorf("%s: missing: %q", name, m)
		}
		if len(e.Remote.Rules) != 1 {
			t.Fatalf("%s: rules %+v", name, e.Remote.Rules)
		}
		rule := e.Remote.Rules[0]
		if rule.Before == nil || *rule.Before != (pfconf.Counters{}) || rule.After == nil || rule.After.Matched == 0 ||
			rule.After.Done != rule.After.Matched || !strings.Contains(rule.Text, "tproxy") ||
			!strings.Contains(rule.Text, rule.Label) {
			t.Errorf("%s: rule %+v", name, rule)
		}
		loopback := "127.0.0.1"
		if name == tcp6 {
			loopback = "::1"
		}
		if !slices.ContainsFunc(e.Remote.Sockets, func(s evidence.SocketEntry) bool {
			return s.Local.Addr().String() == loopback && s.State != "closed"
		}) {
			t.Errorf("%s: the server's open socket is not among %+v", name, e.Remote.Sockets)
		}
		checkPackets(t, name, e.Local.Packets, "local0", "out")
		checkPackets(t, name, e.Remote.Packets, "remote0", "in")
		if len(e.Local.Sockets) == 0 {
			t.Errorf("%s: LOCAL has no socket", name)
		}
	}
	dir := t.TempDir()
	if err := report.WriteFolders(dir, []matrix.Result{results[udp]}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"evidence.txt": "local 10.208.0.0/12 dev lo table 28774",
		"local.pcapng": "Client\n", "remote.pcapng": "Client\n"} {
		if text, err := os.ReadFile(filepath.Join(dir, udp, file)); err != nil ||
			!strings.Contains(string(text), want) {
			t.Errorf("%s: %v, without %q", file, err, want)
		}
	}
	udpSeen, tcpSeen := results[udp].Evidence, results[tcp6].Evidence
	for _, c := range []struct{ what, got, want string }{
		{"rules", answer(udpSeen.Remote, "ip rule"), "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n32767:\tfrom all lookup default"},
		{"table", answer(udpSeen.Remote, "ip route show table"), "local 10.208.0.0/12 dev lo table 28774"},
		{"FAKE", answer(udpSeen.Remote, "ip addr show to"), "(none)"},
		{"route", answer(udpSeen.Remote, "ip route get 10.208"), "RTNETLINK answers: No route to host"},
		{"route of IPv6", answer(tcpSeen.Remote, "ip -6 route get fd00:188:2:"),
			"RTNETLINK answers: Network is unreachable"},
		{"setting", answer(udpSeen.Remote, "sysctl net.ipv4.ip_early_demux"), "net.ipv4.ip_early_demux = 0"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, not %q", c.what, c.got, c.want)
		}
	}
	if got := answer(udpSeen.Local, "ip route get 10.208"); !strings.Contains(got, " via 10.188.1.2 dev ") {
		t.Errorf("LOCAL's route to FAKE: %q", got)
	}
	if moved(udpSeen.Remote, "Ip: InAddrErrors") == 0 || moved(tcpSeen.Remote, "Ip6: InNoRoutes") == 0 {
		t.Errorf("the drops were not counted: %+v", udpSeen.Remote.Moved)
	}
	if !slices.ContainsFunc(tcpSeen.Local.Sockets, func(s evidence.SocketEntry) bool { return s.State == "SYN_SENT" }) {
		t.Errorf("the client's SYN is not seen: %+v", tcpSeen.Local.Sockets)
	}
}

// checkPackets: the cell's packets were captured on the interface, its first in the direction.
func checkPackets(t *testing.T, name string, packets []evidence.Packet, nic, direction string) {
	t.Helper()
	if len(packets) < 2 { // the control's and the cell's
		t.Fatalf("%s: %d packets on %s", name, len(packets), nic)
	}
	last := time.Time{}
	for _, p := range packets {
		if p.Interface != nic || p.Link != evidence.LinkEthernet || len(p.Data) < 49 || p.Length < len(p.Data) ||
			p.Time.Before(last) || time.Since(p.Time) > time.Minute || p.Time.Nanosecond() == 0 {
			t.Errorf("%s: packet %+v", name, p)
		}
		last = p.Time
	}
	if packets[0].Direction != direction {
		t.Errorf("%s: the first packet on %s went %s", name, nic, packets[0].Direction)
	}
}

// TestEvidenceOfReplies: what REMOTE's states and sockets were while an answer was missing.
func TestEvidenceOfReplies(t *testing.T) {
	const name = "inet6-args-udp-reply-to"
	r := looked(t, matrix.Options{Omit: []string{"back"}}, matrix.Plan{}, name)[name]
	if r.Reason != matrix.NoReply || r.Evidence == nil {
		t.Fatalf("%v: evidence %v", r, r.Evidence)
	}
	remote := r.Evidence.Remote
	if len(remote.States) != 1 || remote.States[0].Mark == 0 {
		t.Errorf("states %+v", remote.States)
	}
	if !slices.ContainsFunc(remote.Sockets, func(s evidence.SocketEntry) bool {
		return s.Proto == "udp" && s.State != "closed" && s.Remote.IsValid()
	}) {
		t.Errorf("the client's socket is not among %+v", remote.Sockets)
	}
}

// TestEvidenceOfErrors: what ICMP told a socket is kept when the socket is closed.
func TestEvidenceOfErrors(t *testing.T) {
	const name = "inet6-args-udp-to"
	r := looked(t, matrix.Options{Omit: []string{"policy-rule"}}, matrix.Plan{}, name)[name]
	if r.Evidence == nil || len(r.Evidence.Local.Errors) == 0 ||
		!strings.Contains(r.Evidence.Local.Errors[0], "ICMPv6 type 1 code ") {
		t.Fatalf("%v: evidence %+v", r, r.Evidence)
	}
}

// TestEvidenceOfPassed: a passed cell has evidence when it is asked for, and none else; and its
// verdict is the same.
func TestEvidenceOfPassed(t *testing.T) {
	for _, wanted := range []bool{false, true} {
		for name, r := range looked(t, matrix.Options{Evidence: wanted, Capture: true}, matrix.Plan{}, "inet*-args-*",
			"inet*-reuse-*") {
			if r.Verdict != matrix.Pass || (r.Evidence != nil) != wanted {
				t.Errorf("wanted %v: %s: %v, evidence %v", wanted, name, r, r.Evidence)
			}
			if !wanted {
				continue
			}
			if rules := r.Evidence.Remote.Rules; len(rules) != 1 || rules[0].After.Matched == 0 ||
				len(r.Evidence.Remote.States) == 0 {
				t.Errorf("%s: rules %+v, states %+v", name, rules, r.Evidence.Remote.States)
			}
			if len(r.Evidence.Local.Packets) == 0 || len(r.Evidence.Remote.Packets) == 0 {
				t.Errorf("%s: %d packets at LOCAL and %d at REMOTE", name, len(r.Evidence.Local.Packets),
					len(r.Evidence.Remote.Packets))
			}
		}
	}
}

// TestEvidenceBounded: of a target that fails again and again only the first runs are looked at.
func TestEvidenceBounded(t *testing.T) {
	p := reach(t, testbed.Options{})
	opt := p.Options
	opt.Omit = []string{"mark"}
	targets, err := matrix.Select([]string{"inet-args-udp-to"})
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan matrix.Result, 10)
	if err := matrix.Run(t.Context(), p.Hosts.Tested(), matrix.Plan{Targets: targets, Rounds: 10}, opt,
		func(r matrix.Result) { results <- r }); err != nil {
		t.Fatal(err)
	}
	close(results)
	seen, all := 0, 0
	for r := range results {
		all++
		if r.Evidence != nil {
			seen++
		}
	}
	// Those that are under way at the same time do not know of each other.
	if all != 10 || seen < 1 || seen > 5 {
		t.Errorf("%d of %d runs were looked at", seen, all)
	}
}

// BenchmarkCapture runs all targets in a lab, from the start of its agents to their end, with
// packets captured and without, by turns, and tells by how much longer the one takes.
func BenchmarkCapture(b *testing.B) {
	labtest.Need(b)
	took := map[bool][]time.Duration{}
	play := func(capture bool) {
		began := time.Now()
		p, err := testbed.ReachLab(b.Context(), testbed.Options{})
		if err != nil {
			b.Fatal(err)
		}
		opt := p.Options
		opt.Capture = capture
		err = matrix.Run(b.Context(), p.Hosts.Tested(), matrix.Plan{Targets: matrix.Targets()}, opt,
			func(r matrix.Result) {
				if r.Verdict == matrix.Fail || r.Verdict == matrix.Error {
					b.Error(r)
				}
			})
		p.Close()
		if err != nil {
			b.Fatal(err)
		}
		took[capture] = append(took[capture], time.Since(began))
	}
	for first := false; b.Loop(); first = !first {
		play(first)
		play(!first)
	}
	median := func(all []time.Duration) time.Duration {
		slices.Sort(all)
		return all[len(all)/2]
	}
	b.ReportMetric(float64(median(took[true]))/float64(median(took[false])), "captured/without")
}
