package matrix

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// exchangeOf is an exchange of the target, as it is run on a kernel with the firewall.
func exchangeOf(t *testing.T, firewall, target string, second bool) *exchange {
	t.Helper()
	some, err := Select([]string{target})
	if err != nil {
		t.Fatal(err)
	}
	kernel, ok := KernelOf(firewall)
	if !ok {
		t.Fatalf("no kernel with %s", firewall)
	}
	p := &testCase{Cell: space(someAddresses, someAddresses6).Cell(some[0]), kernel: kernel}
	x := &exchange{testCase: p, mode: p.First, client: p.Client, server: p.Server}
	if second {
		p.used = []usedFlow{{x.flow(), false, time.Now()}}
		x = &exchange{testCase: p, mode: p.Second, part: "-2", client: p.Server, server: p.Client}
	}
	return x
}

// verdictOf says what an error of a half means: "PASS", or verdict and reason.
func verdictOf(err error) string {
	var f *finding
	var taken *portTakenError
	switch {
	case err == nil:
		return "PASS"
	case errors.As(err, &f):
		return fmt.Sprintf("%s %s", f.verdict, f.reason)
	case errors.As(err, &taken):
		return "again"
	}
	return err.Error()
}

func fault(code string) *script.Error { return &script.Error{Code: code, Text: "text of " + code} }

// What a socket received, against what was sent.
func TestJudge(t *testing.T) {
	from, to := netip.MustParseAddrPort("10.192.0.1:8000"), netip.MustParseAddrPort("10.208.0.1:20000")
	header := script.EchoHeader{Type: 8, ID: 7, Seq: 1, Checksum: true}
	good := script.Message{Data: []byte(script.ClientLine), From: from, To: to}
	echo := good
	echo.Echo = &header
	with := func(m script.Message, change func(*script.Message)) script.Message {
		change(&m)
		return m
	}
	sent := want{script.ClientLine, from, to, NotDelivered, nil}
	pinged := want{script.ClientLine, from, to, NoReply, &header}
	packet := want{script.PacketLine, from, netip.AddrPort{}, NotReinjected, nil}
	control := want{script.ClientLine, from, netip.AddrPort{}, ControlLost, nil}
	for _, c := range []struct {
		name    string
		outcome script.Outcome
		wants   []want
		verdict string
		detail  string
	}{
		{"what was sent", script.Outcome{Messages: []script.Message{good}}, []want{sent}, "PASS", ""},
		{"two in order", script.Outcome{Messages: []script.Message{good, echo}}, []want{sent, pinged}, "PASS", ""},
		{"nothing where nothing was sent", script.Outcome{}, nil, "PASS", ""},
		{"nothing", script.Outcome{}, []want{sent}, "FAIL not-delivered",
			`nothing arrived, "Client\n" from 10.192.0.1:8000 was due`},
		{"nothing, and it is said", script.Outcome{Err: fault(script.CodeNothing)}, []want{pinged}, "FAIL no-reply",
			"text of nothing"},
		{"an ICMP error", script.Outcome{Text: "port unreachable from 10.188.1.2"}, []want{sent}, "FAIL not-delivered",
			"port unreachable from"},
		{"a refused connection", script.Outcome{Err: fault("ECONNREFUSED")}, []want{sent}, "FAIL not-delivered", ""},
		{"one of two", script.Outcome{Messages: []script.Message{echo}}, []want{pinged, pinged}, "FAIL no-reply",
			"1 of 2 messages arrived"},
		{"twice", script.Outcome{Messages: []script.Message{good, good}}, []want{sent}, "FAIL duplicate",
			"1 more than was sent"},
		{"something where nothing was sent", script.Outcome{Messages: []script.Message{good}}, nil, "FAIL duplicate",
			""},
		{"something else", script.Outcome{Messages: []script.Message{with(good,
			func(m *script.Message) { m.Data = []byte("Server\n") })}}, []want{sent}, "FAIL wrong-data",
			`received "Server\n", not "Client\n"`},
		{"from another", script.Outcome{Messages: []script.Message{with(good,
			func(m *script.Message) { m.From = to })}}, []want{sent}, "FAIL wrong-address",
			"received from 10.208.0.1:20000"},
		{"from another port", script.Outcome{Messages: []script.Message{with(good,
			func(m *script.Message) { m.From = netip.AddrPortFrom(from.Addr(), 1) })}}, []want{sent},
			"FAIL wrong-address", ""},
		{"to the loopback address", script.Outcome{Messages: []script.Message{with(good,
			func(m *script.Message) { m.To = netip.MustParseAddrPort("127.0.0.1:20000") })}}, []want{sent},
			"FAIL wrong-address", "the destination is shown as 127.0.0.1:20000"},
		{"an echo of another id", script.Outcome{Messages: []script.Message{with(echo,
			func(m *script.Message) { m.Echo = &script.EchoHeader{Type: 8, ID: 8, Seq: 1, Checksum: true} })}},
			[]want{pinged}, "FAIL wrong-data", ""},
		{"an echo of a bad checksum", script.Outcome{Messages: []script.Message{with(echo,
			func(m *script.Message) { m.Echo = &script.EchoHeader{Type: 8, ID: 7, Seq: 1} })}}, []want{pinged},
			"FAIL wrong-data", ""},
		{"no echo", script.Outcome{Messages: []script.Message{good}}, []want{pinged}, "FAIL wrong-data",
			"no ICMP header"},
		{"not rewritten", script.Outcome{Messages: []script.Message{good}}, []want{packet}, "FAIL not-rewritten", ""},
		{"not reinjected", script.Outcome{}, []want{packet}, "FAIL not-reinjected", ""},
		{"a control that is lost", script.Outcome{}, []want{control}, "ERROR control-lost", "nothing arrived"},
		{"another line than the control's", script.Outcome{Messages: []script.Message{with(good,
			func(m *script.Message) { m.Data = []byte(script.PacketLine) })}}, []want{control}, "FAIL wrong-data", ""},
		{"a socket that broke", script.Outcome{Err: fault("EBADF")}, []want{sent}, "ERROR question-failed",
			"text of EBADF"},
		{"nothing due, and a socket that broke", script.Outcome{Err: fault("EIO")}, nil, "ERROR question-failed", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := exchangeOf(t, "nftables", "inet-args-udp-to", false)
			err := x.judge(&stepResult{step: script.Receive{}, Outcome: c.outcome, where: "remote server"}, c.wants...)
			if got := verdictOf(err); got != c.verdict {
				t.Errorf("%s (%v), want %s", got, err, c.verdict)
			}
			if err != nil && (!strings.HasPrefix(err.Error(), "remote server: ") ||
				!strings.Contains(err.Error(), c.detail)) {
				t.Errorf("detail %q", err)
			}
		})
	}
}

func TestSilent(t *testing.T) {
	x := exchangeOf(t, "nftables", "inet-args-udp-to", false)
	for want, o := range map[string]script.Outcome{
		"PASS":                   {},
		"FAIL control-delivered": {Messages: []script.Message{{Data: []byte("x")}}},
		"ERROR question-failed":  {Err: fault("EBADF")},
	} {
		if got := verdictOf(x.silent(&stepResult{step: script.Rest{}, Outcome: o}, "it came")); got != want {
			t.Errorf("%+v: %s, want %s", o, got, want)
		}
	}
	if got := verdictOf(x.silent(&stepResult{Outcome: script.Outcome{Err: fault(script.CodeNothing)}},
		"")); got != "PASS" {
		t.Errorf("nothing heard: %s", got)
	}
	// A socket that could not be asked is not one that heard nothing.
	for _, code := range []string{script.CodeSkipped, "ECONNREFUSED", "EHOSTUNREACH"} {
		a := &stepResult{step: script.Rest{}, Outcome: script.Outcome{Err: fault(code)}}
		for _, err := range []error{x.silent(a, ""), x.judge(a)} {
			if got := verdictOf(err); got != "ERROR question-failed" {
				t.Errorf("%s: %s", code, got)
			}
		}
	}
}

// What it means that a socket could not be opened or connected.
func TestOpened(t *testing.T) {
	foreign := script.Open{Spec: script.Datagram{Ends: script.Ends{Bindany: true}}}
	for _, c := range []struct {
		name    string
		second  bool
		asked   stepResult
		verdict string
	}{
		{"all well", false, stepResult{}, "PASS"},
		{"a port that another process has", false, stepResult{Outcome: script.Outcome{Err: fault("EADDRINUSE")}},
			"again"},
		{"a port that the first cell has", true, stepResult{Outcome: script.Outcome{Err: fault("EADDRINUSE")}},
			"FAIL port-blocked"},
		{"a flow that the first cell has", true, stepResult{step: script.Connect{},
			Outcome: script.Outcome{Err: fault("EADDRNOTAVAIL")}}, "FAIL port-blocked"},
		{"a foreign address", false, stepResult{step: foreign, Outcome: script.Outcome{Err: fault("EADDRNOTAVAIL")}},
			"FAIL no-bindany"},
		{"an address that is not the host's", false, stepResult{step: script.Open{Spec: script.Datagram{}},
			Outcome: script.Outcome{Err: fault("EADDRNOTAVAIL")}}, "ERROR socket-failed"},
		{"no way to FAKE", false, stepResult{host: "local", step: script.Connect{},
			Outcome: script.Outcome{Err: fault("ENETUNREACH")}}, "ERROR local-route"},
		{"a connection that is refused at once", false, stepResult{step: script.Connect{},
			Outcome: script.Outcome{Err: fault("ECONNREFUSED")}}, "FAIL not-delivered"},
		{"no way from FAKE", false, stepResult{host: "remote", bound: true, step: script.Connect{},
			Outcome: script.Outcome{Err: fault("EHOSTUNREACH")}}, "FAIL no-bindany"},
		{"a connection that the own filter refuses", false, stepResult{step: script.Connect{},
			Outcome: script.Outcome{Err: fault("EACCES")}}, "ERROR socket-failed"},
		{"no privilege", false, stepResult{Outcome: script.Outcome{Err: fault("EPERM")}}, "ERROR socket-failed"},
	} {
		x := exchangeOf(t, "nftables", "inet-reuse-tcp-to-reply", c.second)
		if got := verdictOf(x.opened(&stepResult{}, &c.asked)); got != c.verdict {
			t.Errorf("%s: %s, want %s", c.name, got, c.verdict)
		}
	}
}

// TestOpenedRaw: Linux before 5.17 binds no raw IPv4 socket to a foreign address, which is a lack
// and no failure. All else that is refused is the kernel's failure, on old ones too.
func TestOpenedRaw(t *testing.T) {
	for _, c := range []struct{ kernel, target, verdict string }{
		{"Linux 5.10.0-32-cloud-amd64", "inet-args-rip-reply", "SKIP no-feature"},
		{"Linux 5.10.0-32-cloud-amd64", "inet-args-icmp-reply-to", "SKIP no-feature"},
		{"Linux 5.16.20", "inet-args-rip-reply", "SKIP no-feature"},
		{"Linux 4.19.0-27-amd64", "inet-args-rip-reply", "SKIP no-feature"},
		{"Linux 5.10.0-32-cloud-amd64", "inet6-args-rip-reply", "FAIL no-bindany"},
		{"Linux 5.10.0-32-cloud-amd64", "inet-args-udp-reply", "FAIL no-bindany"},
		{"Linux 5.17.0-rc1", "inet-args-rip-reply", "FAIL no-bindany"},
		{"Linux 6.1.0-50-cloud-amd64", "inet-args-rip-reply", "FAIL no-bindany"},
		{"Linux", "inet-args-rip-reply", "FAIL no-bindany"},
		{"", "inet-args-rip-reply", "FAIL no-bindany"},
	} {
		x := exchangeOf(t, "nftables", c.target, false)
		x.kernel.Release, x.kernel.Minor = releaseOf(c.kernel)
		refused := stepResult{Outcome: script.Outcome{Err: fault("EADDRNOTAVAIL")},
			step: script.Open{Spec: script.RawIP{Ends: script.Ends{Bindany: true}}}}
		if got := verdictOf(x.opened(&refused)); got != c.verdict {
			t.Errorf("%s, %s: %s, want %s", c.kernel, c.target, got, c.verdict)
		}
	}
}

func TestReleaseOf(t *testing.T) {
	for kernel, want := range map[string][2]int{
		"Linux 5.10.0-32-cloud-amd64": {5, 10}, "Linux 6.12.117+deb13-cloud-amd64": {6, 12}, "Linux 7.0-rc1": {7, 0},
		"Linux 6": {6, 0}, "FreeBSD 12.1-STABLE": {12, 1}, "OpenBSD 7.7": {7, 7},
		"Linux next-20261130": {}, "Linux": {}, "": {},
	} {
		if release, minor := releaseOf(kernel); [2]int{release, minor} != want {
			t.Errorf("%q: %d.%d, want %v", kernel, release, minor, want)
		}
	}
}

// The rule's counters, against what the cell's packets must have made of them.
func TestJudgeCounters(t *testing.T) {
	for _, c := range []struct {
		firewall, target string
		second           bool
		counters         pfconf.Counters
		sent, answered   uint64
		verdict          string
	}{
		{"nftables", "inet-args-udp-to", false, pfconf.Counters{Matched: 1, Done: 1}, 1, 0, "PASS"},
		{"nftables", "inet-args-udp-to", false, pfconf.Counters{}, 1, 0, "FAIL not-counted"},
		{"nftables", "inet-args-udp-to", false, pfconf.Counters{Matched: 2, Done: 2}, 1, 0, "FAIL not-counted"},
		{"nftables", "inet-args-udp-to", false, pfconf.Counters{Matched: 1}, 1, 0, "FAIL not-counted"},
		{"nftables", "inet-args-udp-reply", false, pfconf.Counters{Matched: 1, Done: 1}, 1, 0, "PASS"},
		{"nftables", "inet-args-udp-reply", false, pfconf.Counters{Matched: 1, Done: 1, Replies: 1}, 1, 0,
			"FAIL not-counted"},
		{"nftables", "inet-args-rip-reply-to", false, pfconf.Counters{Matched: 1, Done: 1, Replies: 1}, 1, 1, "PASS"},
		{"nftables", "inet-args-rip-reply-to", false, pfconf.Counters{Matched: 1, Done: 1}, 1, 1, "FAIL not-counted"},
		{"nftables", "inet-args-tcp-to", false, pfconf.Counters{Matched: 5, Done: 5}, 3, 2, "PASS"},
		{"nftables", "inet-args-tcp-to", false, pfconf.Counters{Matched: 2, Done: 2}, 3, 2, "FAIL not-counted"},
		{"nftables", "inet-args-tcp-reply", false, pfconf.Counters{Matched: 5, Done: 5, Replies: 4}, 3, 2, "PASS"},
		{"nftables", "inet-args-tcp-reply", false, pfconf.Counters{Matched: 5, Done: 5, Replies: 1}, 3, 2,
			"FAIL not-counted"},
		{"nftables", "inet-args-udp-packet-in", false, pfconf.Counters{Matched: 1, Done: 1}, 1, 0, "PASS"},
		{"nftables", "inet-args-udp-packet-in", false, pfconf.Counters{Matched: 1}, 1, 0, "FAIL not-counted"},
		// A reply rule of ipfw is about the packets that come back.
		{"ipfw", "inet-args-udp-to", false, pfconf.Counters{Matched: 1, Done: 1}, 1, 0, "PASS"},
		{"ipfw", "inet-args-udp-to", false, pfconf.Counters{}, 1, 0, "FAIL not-counted"},
		{"ipfw", "inet-args-udp-reply", false, pfconf.Counters{}, 1, 0, "PASS"},
		{"ipfw", "inet-args-udp-reply", false, pfconf.Counters{Matched: 1, Done: 1, Replies: 1}, 1, 0,
			"FAIL not-counted"},
		{"ipfw", "inet-args-icmp-reply-reuse", false, pfconf.Counters{Matched: 2, Done: 2, Replies: 2}, 2, 2, "PASS"},
		{"ipfw", "inet-args-icmp-reply-reuse", false, pfconf.Counters{Matched: 1, Done: 1, Replies: 1}, 2, 2,
			"FAIL not-counted"},
		{"ipfw", "inet-args-tcp-reply", false, pfconf.Counters{Matched: 4, Done: 4, Replies: 4}, 3, 2, "PASS"},
		{"ipfw", "inet-args-tcp-reply", false, pfconf.Counters{Matched: 1, Done: 1, Replies: 1}, 3, 2,
			"FAIL not-counted"},
		{"ipfw", "inet-args-udp-packet-out", false, pfconf.Counters{Matched: 2, Done: 2}, 1, 0, "FAIL not-counted"},
		{"pf", "inet-args-udp-packet-in", false, pfconf.Counters{States: 1}, 1, 0, "PASS"},
		{"pf", "inet-args-udp-packet-in", false, pfconf.Counters{}, 1, 0, "FAIL not-counted"},
		{"pf", "inet-args-udp-reply-to", false, pfconf.Counters{Matched: 2, Done: 2, States: 1}, 1, 1, "PASS"},
		{"pf", "inet-args-udp-reply-to", false, pfconf.Counters{}, 1, 1, "FAIL not-counted"},
		// pf's state of udp-to is that of the reversed flow as well.
		{"pf", "inet-reuse-udp-to-reply", true, pfconf.Counters{}, 1, 0, "PASS"},
		{"pf", "inet-reuse-udp-to-reply", true, pfconf.Counters{Matched: 1, States: 1}, 1, 0, "FAIL not-counted"},
		{"pf", "inet-reuse-udp-reply-to", true, pfconf.Counters{Matched: 1, Done: 1, States: 1}, 1, 0, "PASS"},
		{"nftables", "inet-reuse-udp-to-reply", true, pfconf.Counters{Matched: 1, Done: 1}, 1, 0, "PASS"},
	} {
		x := exchangeOf(t, c.firewall, c.target, c.second)
		x.counters, x.counterKnown = c.counters, true
		if got := verdictOf(x.judgeCounters(c.sent, c.answered)); got != c.verdict {
			t.Errorf("%s on %s, second %v, %+v: %s, want %s", c.target, c.firewall, c.second, c.counters, got,
				c.verdict)
		}
	}
}

// A failure that a kernel is known for is expected, any other is not, and so is
// its passing.
func TestExpected(t *testing.T) {
	known, other := exchangeOf(t, "pf", "inet6-reuse-rip-to-reply-to", false).Target,
		exchangeOf(t, "pf", "inet-args-tcp-to", false).Target
	for _, c := range []struct {
		firewall string
		target   Target
		result   Result
		want     Verdict
		reason   string
	}{
		{"pf", known, Result{Verdict: Fail, Reason: NoReply, Detail: "no."}, XFail, NoReply},
		{"pf", known, Result{Verdict: Fail, Reason: NotDelivered}, Fail, NotDelivered},
		{"pf", known, Result{Verdict: Pass}, XPass, KnownFailurePassed},
		{"pf", known, Result{Verdict: Error, Reason: AgentLost}, Error, AgentLost},
		{"pf", other, Result{Verdict: Fail, Reason: NoReply}, Fail, NoReply},
		{"pf", exchangeOf(t, "pf", "inet-divert-pf-route-to", false).Target,
			Result{Verdict: Fail, Reason: WrongWay, Detail: "no."}, XFail, WrongWay},
		{"pf", exchangeOf(t, "pf", "inet6-divert-pf-reply-to", false).Target,
			Result{Verdict: Fail, Reason: WrongWay, Detail: "no."}, XFail, WrongWay},
		{"pf", exchangeOf(t, "pf", "inet-divert-pf-reply-to", false).Target,
			Result{Verdict: Error, Reason: ControlLost}, Error, ControlLost},
		{"pf", exchangeOf(t, "pf", "inet-divert-pf-dup-to", false).Target,
			Result{Verdict: Fail, Reason: NotDuplicated, Detail: "no."}, XFail, NotDuplicated},
		{"pf", exchangeOf(t, "pf", "inet-divert-pf-dup-to", false).Target,
			Result{Verdict: Fail, Reason: WrongWay}, Fail, WrongWay},
		{"pf", exchangeOf(t, "pf", "inet-divert-pf-forwarded-once", false).Target,
			Result{Verdict: Fail, Reason: NotCounted, Detail: "no."}, XFail, NotCounted},
		{"pf", exchangeOf(t, "pf", "inet-divert-pf-forwarded-in", false).Target,
			Result{Verdict: Fail, Reason: NotCounted}, Fail, NotCounted},
		{"nftables", known, Result{Verdict: Pass}, Pass, ""},
		{"nftables", known, Result{Verdict: Fail, Reason: NoReply}, Fail, NoReply},
	} {
		k, _ := KernelOf(c.firewall)
		got := k.expected(c.target, c.result, "")
		if got.Verdict != c.want || got.Reason != c.reason || got.Verdict == XFail &&
			!strings.Contains(got.Detail, "no; known: ") {
			t.Errorf("%s on %s, %v: %v", c.target.Name, c.firewall, c.result, got)
		}
	}
	if _, ok := KernelOf("iptables"); ok {
		t.Error("what to expect of iptables is not known")
	}
}

// What pf of FreeBSD diverts itself is known to fail in old releases, by family.
func TestExpectedOfPF(t *testing.T) {
	for _, c := range []struct {
		kernel, target, reason string
		want                   Verdict
	}{
		{"FreeBSD 12.1-STABLE", "inet-divert-pf-packet-in", Looped, XFail},
		{"FreeBSD 13.2-RELEASE", "inet-divert-pf-packet-out", Looped, XFail},
		{"FreeBSD 14.0-RELEASE", "inet-divert-pf-packet-in", Looped, Fail},
		{"", "inet-divert-pf-packet-in", Looped, Fail},
		{"FreeBSD 12.1-STABLE", "inet-divert-pf-packet-in", NotRewritten, Fail},
		{"FreeBSD 12.1-STABLE", "inet-divert-no-loop-in", Looped, Fail},
		{"FreeBSD 12.1-STABLE", "inet6-divert-pf-packet-in", NotRewritten, XFail},
		{"FreeBSD 15.0-RELEASE", "inet6-divert-pf-rdr-in-udp", NotRewritten, XFail},
		{"FreeBSD 15.1-RELEASE-p1", "inet6-divert-pf-packet-in", NotRewritten, Fail},
		{"FreeBSD 12.1-STABLE", "inet6-divert-pf-packet-out", NotDelivered, Fail},
	} {
		targets, err := Select([]string{c.target})
		if err != nil || len(targets) != 1 {
			t.Fatalf("%s: %v, %v", c.target, targets, err)
		}
		k, _ := KernelOf("ipfw")
		k.Release, k.Minor = releaseOf(c.kernel)
		if got := k.expected(targets[0], Result{Verdict: Fail, Reason: c.reason}, ""); got.Verdict != c.want {
			t.Errorf("%s on %q, %s: %v, want %v", c.target, c.kernel, c.reason, got.Verdict, c.want)
		}
	}
}

// With pf on beside ipfw one direction loops from FreeBSD 14 on: which one is not known beforehand,
// so a target may pass, and a failure with another cause is a new one.
func TestExpectedBesidePF(t *testing.T) {
	const spoils = "pf-spoils-divert"
	for _, c := range []struct {
		target  string
		release int
		pfOn    bool
		verdict Verdict
		reason  string
		cause   string
		want    Verdict
	}{
		{"inet-args-udp-packet-in", 15, true, Fail, NotReinjected, spoils, XFail},
		{"inet-divert-no-loop-in", 15, true, Fail, Looped, spoils, XFail},
		{"inet-divert-ipfw-pf-out", 15, true, Fail, Looped, spoils, XFail},
		{"inet6-divert-tcp-out", 14, true, Fail, NotDelivered, spoils, XFail},
		{"inet-divert-no-loop-in", 15, true, Pass, "", "", Pass},
		{"inet-divert-no-loop-in", 15, true, Fail, Looped, "claim-broken", Fail},
		{"inet-divert-no-loop-in", 15, true, Error, QuestionFailed, spoils, Error},
		{"inet-divert-no-loop-in", 15, false, Fail, Looped, spoils, Fail},
		{"inet-divert-no-loop-in", 13, true, Fail, Looped, spoils, Fail},
		{"inet-divert-pf-packet-in", 15, true, Fail, Looped, spoils, Fail},
		{"inet-args-udp-to", 15, true, Fail, NotDelivered, spoils, Fail},
		{"inet6-divert-tee-fragments", 15, true, Fail, WrongData, "claim-broken", XFail},
		{"inet-divert-tee-fragments", 15, true, Fail, WrongData, "claim-broken", Fail},
		{"inet-divert-tee-fragments", 15, true, Fail, WrongData, "pf-reassembles", XFail},
		{"inet-divert-tee-fragments", 15, true, Pass, "", "", Pass},
		{"inet-divert-bad-header-out", 15, false, Fail, RefusedOtherwise, "", XFail},
		{"inet-divert-bad-header-out", 15, false, Fail, NotRefused, "", Fail},
		{"inet-divert-bad-header-out", 12, false, Fail, RefusedOtherwise, "", Fail},
		{"inet-divert-bad-header-out", 15, false, Pass, "", "", XPass},
		{"inet-divert-pf-rdr-in-udp", 15, true, Fail, NotReinjected, "", XFail},
		{"inet6-divert-pf-rdr-in-tcp", 15, true, Fail, NotReinjected, "", XFail},
		{"inet-divert-pf-rdr-in-tcp", 15, true, Fail, NotDelivered, "", Fail},
		{"inet-divert-pf-rdr-in-udp", 15, true, Pass, "", "", XPass},
		{"inet-divert-pf-state-in", 15, true, Fail, NotReinjected, "", Fail},
		{"inet-divert-header-beyond-out", 15, false, Fail, RefusedOtherwise, "", XFail},
		{"inet-divert-header-beyond-out", 15, false, Fail, NotRefused, "", Fail},
	} {
		targets, err := Select([]string{c.target})
		if err != nil || len(targets) != 1 {
			t.Fatalf("%s: %v, %v", c.target, targets, err)
		}
		k, _ := KernelOf("ipfw")
		k.Release, k.PFOn = c.release, c.pfOn
		if got := k.expected(targets[0], Result{Verdict: c.verdict, Reason: c.reason}, c.cause); got.Verdict != c.want {
			t.Errorf("%+v: %v", c, got.Verdict)
		}
	}
	k, _ := KernelOf("ipfw")
	targets, _ := Select([]string{"inet-divert-ipfw-pf-in"})
	r := runner{kernel: k}
	if f := r.skip(targets[0]); f == nil || f.verdict != Skip || f.reason != NoFeature {
		t.Errorf("with pf off: %+v", f)
	}
	if r.facts.PFOn = true; r.skip(targets[0]) != nil {
		t.Error("it is skipped where pf is on")
	}
}

// What may crash a kernel is run only where that is allowed, and list says which these are.
func TestDangerous(t *testing.T) {
	k, _ := KernelOf("ipfw")
	v4, v6 := netip.MustParseAddr("10.188.3.1"), netip.MustParseAddr("fd00:188:3::1")
	second := map[pfconf.Family]Network{pfconf.Inet: {Gateway: v4, Mirror: v4},
		pfconf.Inet6: {Gateway: v6, Mirror: v6}}
	for minor, want := range []string{
		"divert-pf-state-in divert-pf-shared-port divert-pf-tag-in divert-pf-route-to divert-pf-reply-to divert-pf-dup-to divert-pf-nat-out divert-pf-pipe-in divert-header-beyond-out",
		"divert-header-beyond-out"} {
		k.Release, k.Minor = 15, minor
		var skipped []string
		for _, target := range Claims() {
			if target.Claim.skip(k) != nil {
				continue
			}
			r := runner{kernel: k, facts: script.Facts{PFOn: true}, opt: Options{Second: second}}
			f := r.skip(target)
			if f != nil && target.Family == pfconf.Inet {
				skipped = append(skipped, target.Kind())
			}
			if f != nil && (f.reason != Dangerous || !strings.Contains(target.Proves(), "-dangerous")) {
				t.Errorf("%s: %+v, %q", target.Name, f, target.Proves())
			}
			if r.opt.Dangerous = true; r.skip(target) != nil {
				t.Errorf("%s is skipped where it is allowed", target.Name)
			}
		}
		if got := strings.Join(skipped, " "); got != want {
			t.Errorf("on FreeBSD 15.%d these may crash the kernel: %s; want %s", minor, got, want)
		}
	}
}

// A target that needs a second network or a third host is skipped where REMOTE has none, or does
// not forward, and the reason names the one thing that is missing. A question that failed is an
// ERROR.
func TestSkipBeyond(t *testing.T) {
	gateway, mirror := netip.MustParseAddr("10.188.3.1"), netip.MustParseAddr("10.188.4.1")
	both := Network{Gateway: gateway, Mirror: mirror}
	there := script.Beyond{Gateway: "em1", Mirror: "em2"}
	with := func(change func(*script.Beyond)) script.Beyond {
		b := there
		change(&b)
		return b
	}
	off := script.Lack{Why: "it does not forward", Hint: "sysctl it"}
	lack, failed := script.Lack{Why: "w", Hint: "h"}, script.Lack{Why: "w", Failed: true}
	const forwarded, tag, route, reply, pass = "forwarded", "pf-tag-in", "pf-route-to", "pf-reply-to", ""
	unnamedGateway := "SKIP no-feature: REMOTE: no second network with LOCAL is named (set GATEWAY_ADDR to an address of " +
		"LOCAL's in a network that REMOTE has a second interface in, or run it in a lab of FreeBSD or OpenBSD)"
	unnamedMirror := "SKIP no-feature: REMOTE: no third host is named to forward to (set MIRROR_ADDR to a third host behind " +
		"another interface of REMOTE's, or run it in a lab of FreeBSD whose kernel has pf, or of OpenBSD)"
	for _, c := range []struct {
		name    string
		second  Network
		beyond  script.Beyond
		unheard string
		want    map[string]string
	}{
		{"all is there", both, there, "", map[string]string{forwarded: pass, tag: pass, route: pass, reply: pass}},
		{"nothing is named", Network{}, script.Beyond{}, "", map[string]string{forwarded: unnamedMirror,
			tag: unnamedMirror, route: unnamedGateway, reply: unnamedGateway}},
		{"no gateway is named", Network{Mirror: mirror}, there, "", map[string]string{forwarded: pass, tag: pass,
			route: unnamedGateway, reply: unnamedGateway}},
		{"no third host is named", Network{Gateway: gateway}, there, "", map[string]string{forwarded: unnamedMirror,
			tag: unnamedMirror, route: unnamedMirror, reply: pass}},
		{"it does not forward", both, with(func(b *script.Beyond) { b.NoForwarding = off }), "",
			map[string]string{forwarded: "SKIP no-feature: REMOTE: it does not forward (sysctl it)", reply: pass}},
		{"the gateway is elsewhere", both, with(func(b *script.Beyond) { b.NoGateway = lack }), "",
			map[string]string{forwarded: pass, tag: pass, route: "SKIP no-feature: REMOTE: w (h)",
				reply: "SKIP no-feature: REMOTE: w (h)"}},
		{"the third host is nowhere", both, with(func(b *script.Beyond) { b.NoMirror = lack }), "",
			map[string]string{forwarded: "SKIP no-feature: REMOTE: w (h)", reply: pass}},
		{"pf does not see them", both, with(func(b *script.Beyond) { b.NoPF = lack }), "",
			map[string]string{forwarded: pass, tag: "SKIP no-feature: REMOTE: w (h)",
				reply: "SKIP no-feature: REMOTE: w (h)"}},
		{"forwarding is not known", both, with(func(b *script.Beyond) { b.NoForwarding = failed }),
			"", map[string]string{forwarded: "ERROR question-failed: REMOTE: w", reply: pass}},
		{"the third host is silent", both, there, "no echo reply", map[string]string{reply: pass,
			forwarded: "ERROR setup-failed: LOCAL: the third host 10.188.4.1 does not answer an echo request: no echo reply"}},
		// An answer of the third host is missed because REMOTE does not forward.
		{"silent behind one that does not forward", both, with(func(b *script.Beyond) { b.NoForwarding = off }),
			"no echo reply", map[string]string{forwarded: "SKIP no-feature: REMOTE: it does not forward (sysctl it)"}},
	} {
		k, _ := KernelOf("ipfw")
		k.Release, k.Minor = 15, 1
		r := runner{kernel: k, opt: Options{Second: map[pfconf.Family]Network{pfconf.Inet: c.second}}}
		r.facts = script.Facts{PFOn: true, Beyond: map[pfconf.Family]script.Beyond{pfconf.Inet: c.beyond}}
		if c.unheard != "" {
			r.localFacts.Unheard = map[pfconf.Family]string{pfconf.Inet: c.unheard}
		}
		for name, want := range c.want {
			targets, err := Select([]string{"inet-divert-" + name})
			if err != nil {
				t.Fatal(err)
			}
			got := pass
			if f := r.skip(targets[0]); f != nil {
				got = fmt.Sprintf("%v %s: %s", f.verdict, f.reason, f.detail)
				if e := r.explained(targets[0], f.result(), nil).Explanation; (e == nil) != (f.verdict == Skip) {
					t.Errorf("%s: %s: %q has the explanation %+v", c.name, name, got, e)
				}
			}
			if got != want {
				t.Errorf("%s: %s: %q, want %q", c.name, name, got, want)
			}
		}
	}
}

// What pf diverts can't be tested where pf can't be used; all else can.
func TestSkipOfPF(t *testing.T) {
	k, _ := KernelOf("ipfw")
	r := runner{kernel: k, facts: script.Facts{Firewall: "ipfw", NoPF: "pf: it is switched off"}}
	for name, skipped := range map[string]bool{"inet-divert-pf-packet-in": true, "inet-divert-no-loop-in": false} {
		targets, _ := Select([]string{name})
		f := r.skip(targets[0])
		if (f != nil) != skipped || f != nil && (f.reason != NoFeature || !strings.Contains(f.detail, "switched off")) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	r.facts = script.Facts{Firewall: "ipfw", NoRdr: "no rdr-anchor"}
	for name, skipped := range map[string]bool{"inet-natlook-tcp": true, "inet-divert-pf-packet-in": false,
		"inet6-divert-no-loop-in": false} {
		targets, _ := Select([]string{name})
		f := r.skip(targets[0])
		if (f != nil) != skipped || f != nil && (f.reason != NoFeature ||
			!strings.Contains(f.detail, "no rdr-anchor")) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	// A question that failed proves no lack.
	r.facts.PFUnknown = true
	targets, _ := Select([]string{"inet-natlook-tcp"})
	if f := r.skip(targets[0]); f == nil || f.verdict != Error || f.reason != QuestionFailed {
		t.Errorf("%+v", f)
	}
	r.facts.NoRdr, r.facts.PFUnknown = "", false
	if targets, _ := Select([]string{"inet6-divert-pf-packet-out"}); r.skip(targets[0]) != nil {
		t.Error("it is skipped where pf can be used")
	}
}

// What fails in other routing domains than 0 is what comes in again, and nothing else: so it was on
// OpenBSD 7.7.
func TestExpectedInDomain(t *testing.T) {
	for name, fails := range map[string]bool{
		"inet-args-udp-packet-in": true, "inet6-args-udp-packet-out": false, "inet-args-udp-to": false,
		"inet6-divert-order-in": true, "inet-divert-order-out": false, "inet-divert-rip-in": true,
		"inet-divert-turned-in": false, "inet6-divert-turned-out": true,
		"inet-divert-pf-match-rdr-in": true, "inet6-divert-pf-rdr-in-udp": true, "inet-divert-pf-once": true,
		"inet-to-once": false,
	} {
		targets, err := Select([]string{name})
		if err != nil || len(targets) != 1 {
			t.Fatalf("%s: %v, %v", name, targets, err)
		}
		for _, other := range []bool{false, true} {
			k, _ := KernelOf("pf")
			k.OtherDomain = other
			failed, passed := Fail, Pass
			if fails && other {
				failed, passed = XFail, XPass
			}
			if got := k.expected(targets[0], Result{Verdict: Fail, Reason: NotReinjected}, ""); got.Verdict != failed {
				t.Errorf("%s fails, other domain %v: %v, want %v", name, other, got, failed)
			}
			if got := k.expected(targets[0], Result{Verdict: Pass}, ""); got.Verdict != passed {
				t.Errorf("%s passes, other domain %v: %v, want %v", name, other, got, passed)
			}
		}
	}
}

// The rules are those that the suite gives, for each way in which a cell is run.
func TestRules(t *testing.T) {
	for _, target := range Targets() {
		for _, second := range []bool{false, true} {
			if second && !target.reuse() {
				continue
			}
			x := exchangeOf(t, "nftables", target.Name, second)
			x.Divert = 666
			r := x.rule()
			if err := r.Validate(); err != nil {
				t.Errorf("%s: %v", target.Name, err)
			}
			want := map[Mode]string{
				To: "in divert-to LOCAL FAKE", Reply: "out divert-reply FAKE LOCAL",
				ReplyTo:    "out divert-reply FAKE LOCAL",
				ReplyReuse: "out divert-reply FAKE LOCAL", PacketIn: "in divert-packet LOCAL REMOTE",
				PacketOut: "out divert-packet REMOTE LOCAL",
			}[x.mode]
			who := map[netip.Addr]string{x.Local: "LOCAL", x.Remote: "REMOTE", x.Fake: "FAKE"}
			if got := fmt.Sprintf("%v %v %s %s", r.Direction, r.Action, who[r.From], who[r.To]); got != want {
				t.Errorf("%s, second %v: %s, want %s", target.Name, second, got, want)
			}
			port := x.Server
			if second { // the ports are swapped
				port = x.Client
			}
			if !target.Proto.HasPorts() {
				port = 0
			}
			if r.Port != port {
				t.Errorf("%s, second %v: port %d, want %d", target.Name, second, r.Port, port)
			}
		}
	}
}

// That a kernel takes an echo request for itself is a SKIP only when all of it is proven: any other
// outcome is judged as on other kernels.
func TestWitness(t *testing.T) {
	x := exchangeOf(t, "ipfw", "inet-args-icmp-to", false)
	from, to := x.flowEnds()
	reply := func(change func(*script.Message)) []script.Message {
		m := script.Message{Data: []byte(script.ClientLine), From: netip.AddrPortFrom(x.Remote, 0), To: from,
			Echo: x.header(1, 1)}
		if change != nil {
			change(&m)
		}
		return []script.Message{m}
	}
	request := []script.Message{{Data: []byte(script.ClientLine), From: from, To: to, Echo: x.header(0, 1)}}
	silent := script.Outcome{}
	for _, c := range []struct {
		name            string
		matched         uint64
		received, heard script.Outcome
		verdict         string
	}{
		{"as FreeBSD does", 1, silent, script.Outcome{Messages: reply(nil)}, "SKIP no-feature"},
		{"the rule did not match", 0, silent, script.Outcome{Messages: reply(nil)}, "PASS"},
		{"no reply", 1, silent, silent, "PASS"},
		{"two replies", 1, silent, script.Outcome{Messages: append(reply(nil), reply(nil)...)}, "PASS"},
		{"the socket heard it", 1, script.Outcome{Messages: request}, script.Outcome{Messages: reply(nil)}, "PASS"},
		{"the socket was not asked", 1, script.Outcome{Err: fault(script.CodeSkipped)},
			script.Outcome{Messages: reply(nil)}, "PASS"},
		{"a reply from FAKE", 1, silent, script.Outcome{Messages: reply(func(m *script.Message) { m.From = to })},
			"PASS"},
		{"another data", 1, silent, script.Outcome{Messages: reply(func(m *script.Message) { m.Data = nil })}, "PASS"},
		{"another id", 1, silent, script.Outcome{Messages: reply(func(m *script.Message) { m.Echo = x.header(1, 2) })},
			"PASS"},
	} {
		x.counters, x.counterKnown = pfconf.Counters{Matched: c.matched, Done: c.matched}, true
		if got := verdictOf(echo{x}.judgeWitness(&stepResult{step: script.Receive{}, Outcome: c.received},
			&stepResult{step: script.Rest{}, Outcome: c.heard})); got != c.verdict {
			t.Errorf("%s: %s, want %s", c.name, got, c.verdict)
		}
	}
}

// Linux drops sockets in TIME_WAIT since 6.0; a server of an older one binds its port beside them.
func TestReuseOfTimeWait(t *testing.T) {
	for kernel, want := range map[string]bool{
		"Linux 5.10.0-36-cloud-amd64": true, "Linux 6.1.0-50-amd64": false, "Linux 6.18.44": false, "Linux": false,
	} {
		x := exchangeOf(t, "nftables", "inet-reuse-tcp-to-reply", false)
		x.kernel.Release, x.kernel.Minor = releaseOf(kernel)
		if s, ok := x.serverSpec().(script.Stream); !ok || s.Reuse != want {
			t.Errorf("%s: %+v, want reuse %v", kernel, s, want)
		}
	}
}

// What is forwarded on OpenBSD: the rule is about REMOTE's interface alone, and the third host is
// LOCAL's socket in another routing domain, or a host of its own that has connections come back.
func TestForwardedOnOpenBSD(t *testing.T) {
	x := exchangeOf(t, "pf", "inet-divert-pf-forwarded-out", false)
	mirror := netip.MustParseAddr("10.188.4.2")
	x.nics, x.beyond = map[pfconf.Family]string{pfconf.Inet: "pair2"}, script.Beyond{Mirror: "pair5"}
	x.second = Network{Mirror: mirror, Domain: 2}
	client := netip.AddrPortFrom(x.Local, x.client)
	there, here := netip.AddrPortFrom(mirror, x.server), netip.AddrPortFrom(x.Local, x.server)
	for domain, want := range map[int][2]netip.AddrPort{
		2: {there, client}, 0: {here, netip.AddrPortFrom(mirror, x.client)},
	} {
		x.second.Domain = domain
		ends := x.serverSpec().(script.Stream).Ends
		own, peer := x.mirrored(client)
		if got := [2]netip.AddrPort{own, peer}; got != want || ends.Local != own || ends.FIB != domain {
			t.Errorf("domain %d: the server is %v and is spoken to by %v, not %v; its socket: %+v", domain, own, peer, want, ends)
		}
	}
	if r := x.rule(); r.On != "pair2" || r.Direction != pfconf.In || r.To != mirror {
		t.Errorf("the rule about what comes in: %+v", r)
	}
	x.change = func(r *pfconf.Rule) { r.Direction, r.On = pfconf.Out, "pair5" }
	x.omit = map[string]bool{OwnRule: true}
	if r := x.loaded(); r.On != "pair5" || r.From != x.Remote {
		t.Errorf("the rule for no one's packets: %+v", r)
	}
	y := exchangeOf(t, "ipfw", "inet-divert-forwarded", false)
	y.nics, y.second = x.nics, Network{Mirror: mirror}
	if r := y.rule(); r.On != "" {
		t.Errorf("a rule of ipfw's: %+v", r)
	}
}

// A rule that must name REMOTE's interface is not loaded where that is not known: it would be about
// all of them.
func TestUnknownInterface(t *testing.T) {
	for _, target := range Claims() {
		if !strings.HasSuffix(target.Name, "received-on") && target.Kind() != "divert-pf-dup-to" &&
			!strings.HasPrefix(target.Kind(), "divert-pf-forwarded-") {
			continue
		}
		x := &claimRun{exchange: &exchange{testCase: &testCase{Cell: Cell{Target: target}}, mode: target.First}}
		var f *finding
		if err := target.Claim.run(x, t.Context()); !errors.As(err, &f) || f.verdict != Error ||
			f.reason != QuestionFailed {
			t.Errorf("%s: %v", target.Name, err)
		}
	}
}
