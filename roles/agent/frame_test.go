package agent

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// someRequests have each kind of request, filled as an orchestrator fills it.
func someRequests() []Request {
	fake, local := netip.MustParseAddrPort("10.208.0.1:20001"), netip.MustParseAddrPort("10.192.0.1:8001")
	flow := pfconf.Flow{Family: pfconf.Inet, Proto: pfconf.TCP, Near: fake, Far: local}
	return []Request{
		{ID: 1, Ping: &Ping{}},
		{ID: 2, Setup: &script.Setup{
			Remote: true, Rounds: 1, Omit: []string{script.Timestamps}, Trace: "strace",
			Paths: []script.Path{{Here: netip.MustParseAddr("fd00:188:1::2"),
				There: netip.MustParseAddr("fd00:188:1::1")}},
			Fakes: []netip.Prefix{netip.MustParsePrefix("fd00:188:2::/64")},
		}},
		{ID: 3, Script: &script.Script{Cell: "inet-args-tcp-to#1", End: true, Steps: []script.Step{
			script.Open{Socket: "client", Spec: script.Stream{Ends: script.Ends{Role: script.Client, Local: local,
				Remote: fake}}},
			script.Send{Socket: "client", Data: script.ClientLine, Seq: 1},
			script.Fence{Family: pfconf.Inet},
			script.Lookup{Flow: flow},
			script.DropTCP{Near: fake, Far: local},
		}}},
		{ID: 4, Rules: &Rules{[]script.RuleChange{{Kill: []pfconf.Flow{flow}, Remove: []string{"regress-1"},
			Add: []pfconf.Rule{{
				Label: "regress-2", Direction: pfconf.In, Family: pfconf.Inet, Proto: pfconf.TCP,
				From: local.Addr(), To: fake.Addr(), Port: 20001, Action: pfconf.DivertTo,
				Divert: netip.MustParseAddrPort("127.0.0.1:20001"),
			}}}}}},
		{ID: 5, Log: &LogRequest{Cell: "inet-args-tcp-to#1"}},
		{ID: 1<<64 - 1, Bye: &Bye{}},
	}
}

// What one side packs the other unpacks as the same.
func TestFrames(t *testing.T) {
	var wire, buf []byte
	for _, r := range someRequests() {
		var err error
		if wire, err = appendFrame(wire, &r); err != nil {
			t.Fatal(err)
		}
	}
	in := bytes.NewReader(wire)
	for _, want := range someRequests() {
		var got Request
		if err := readFrame(in, &buf, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{},
			netip.Prefix{})); diff != "" {
			t.Errorf("(-sent +received):\n%s", diff)
		}
		if err := got.check(); err != nil {
			t.Errorf("request %d: %v", got.ID, err)
		}
	}
	if err := readFrame(in, &buf, &Request{}); err != io.EOF {
		t.Errorf("behind the last frame: %v, want EOF", err)
	}
}

// frame is a frame of these bytes, whatever they are.
func frame(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestBadFrames(t *testing.T) {
	good, err := appendFrame(nil, &someRequests()[2])
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		name string
		wire []byte
		want string
	}{
		{"nothing", nil, "EOF"},
		{"half a head", good[:2], "unexpected EOF"},
		{"head only", good[:frameHead], "unexpected EOF"},
		{"half a body", good[:len(good)-1], "unexpected EOF"},
		{"the longest and no body", binary.BigEndian.AppendUint32(nil, MaxFrame), "unexpected EOF"},
		{"longer than the longest", binary.BigEndian.AppendUint32(nil, MaxFrame+1), "over the limit"},
		{"a greeting", []byte("Last login: Sun Nov 22"), "over the limit"},
		{"empty", frame(nil), "frame: unpack a agent.Response: it ends within"},
		{"text", frame([]byte(`"hello"`)), "frame: "},
		{"two values", frame([]byte{0, 0, 0}), "1 bytes are behind its end"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			var buf []byte
			err := readFrame(bytes.NewReader(bad.wire), &buf, &Response{})
			if err == nil || !strings.Contains(err.Error(), bad.want) {
				t.Errorf("error %v, want one with %q", err, bad.want)
			}
			if cap(buf) > MaxFrame {
				t.Errorf("%d bytes were taken", cap(buf))
			}
		})
	}
}

func TestLongestFrame(t *testing.T) {
	const head = 20
	for _, over := range []int{-head, 1} {
		before := []byte("before")
		out, err := appendFrame(before, &Response{Log: []script.Transcript{{Text: strings.Repeat("x", MaxFrame+over)}}})
		if over > 0 {
			if err == nil || string(out) != "before" {
				t.Errorf("a body of more than %d bytes: error %v, %d bytes written", MaxFrame, err,
					len(out)-len(before))
			}
			continue
		}
		var buf []byte
		if err == nil {
			err = readFrame(bytes.NewReader(out[len(before):]), &buf, &Response{})
		}
		if err != nil || cap(buf) > MaxFrame {
			t.Errorf("a body of nearly %d bytes: %v, %d bytes taken", MaxFrame, err, cap(buf))
		}
	}
}

// FuzzFrame: whatever comes, reading it does not panic nor take more memory than
// a frame, and what was understood is understood again when it is passed on.
func FuzzFrame(f *testing.F) {
	for _, r := range someRequests() {
		wire, err := appendFrame(nil, &r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	answer, err := appendFrame(nil, &Response{ID: 7, Err: &script.Error{Code: script.CodeOther, Text: "no",
		Hint: "yes"}, Log: []script.Transcript{{End: "client", Text: "x\n"}}, Outcomes: []script.Outcome{{
		Local: netip.MustParseAddrPort("[::1]:1"), Counters: &pfconf.Counters{Matched: 1},
		Messages: []script.Message{{Data: []byte{0, 255}, Echo: &script.EchoHeader{Type: 128}}},
	}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(answer)
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, wire []byte) {
		in := bytes.NewReader(wire)
		var buf []byte
		for {
			left := in.Len()
			var a, again Response
			err := readFrame(in, &buf, &a)
			if cap(buf) > MaxFrame {
				t.Fatalf("%d bytes taken", cap(buf))
			}
			if err == io.EOF && left > 0 {
				t.Fatalf("%d bytes of a frame were taken for the end", left)
			}
			if err != nil {
				return
			}
			out, err := appendFrame(nil, &a)
			if err != nil {
				return // a number without a name, which this program never sends
			}
			if err := readFrame(bytes.NewReader(out), &buf, &again); err != nil {
				t.Fatalf("%v: passed on as %x", err, out)
			}
		}
	})
}

// FuzzRequest: what check lets through asks for one thing, within the bounds.
func FuzzRequest(f *testing.F) {
	for _, r := range someRequests() {
		wire, err := appendFrame(nil, &r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire[frameHead:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var buf []byte
		var r Request
		if readFrame(bytes.NewReader(frame(body)), &buf, &r) != nil || r.check() != nil {
			return
		}
		asked := 0
		for _, set := range []bool{r.Ping != nil, r.Setup != nil, r.Script != nil, r.Rules != nil, r.Log != nil,
			r.Bye != nil} {
			if set {
				asked++
			}
		}
		if asked > 1 || r.Script != nil && len(r.Script.Steps) > 64 || r.Rules != nil && len(r.Rules.Changes) > 4096 {
			t.Fatalf("let through: %+v", r)
		}
		if r.Rules != nil {
			for _, c := range r.Rules.Changes {
				for _, rule := range c.Add {
					_ = rule.Validate() // must not panic, the agent calls it next
				}
			}
		}
	})
}

func TestRequestCheck(t *testing.T) {
	steps := make([]script.Step, 65)
	for _, bad := range []struct {
		request Request
		want    string
	}{
		{Request{ID: 3}, "request 3 asks for 0 things, not one"},
		{Request{Ping: &Ping{}, Bye: &Bye{}}, "request 0 asks for 2 things, not one"},
		{Request{Script: &script.Script{Steps: steps}}, "script of 65 steps is over the limit of 64"},
		{Request{Rules: &Rules{make([]script.RuleChange, 4097)}}, "4097 changes of rules are over the limit of 4096"},
	} {
		if err := bad.request.check(); err == nil || err.Error() != bad.want {
			t.Errorf("%v, want %s", err, bad.want)
		}
	}
}
