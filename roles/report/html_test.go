package report

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/evidence"
	"pfdivert/matrix/explain"
	"pfdivert/pfconf"
)

// frame is an IPv4 packet in an Ethernet frame, as a capture has it.
func frame(at time.Duration, direction string, id uint16, proto byte, from, to netip.AddrPort,
	body string) evidence.Packet {
	transport := []byte(body)
	switch proto {
	case 6: // body is the flags and the payload
		header := make([]byte, 20)
		header[12], header[13] = 5<<4, body[0]
		transport = append(header, body[1:]...)
	case 17:
		header := make([]byte, 8)
		binary.BigEndian.PutUint16(header[4:], uint16(8+len(body)))
		transport = append(header, body...)
	}
	if proto == 6 || proto == 17 {
		binary.BigEndian.PutUint16(transport, from.Port())
		binary.BigEndian.PutUint16(transport[2:], to.Port())
	}
	ip := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0},
		append(from.Addr().AsSlice(), to.Addr().AsSlice()...)...)
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(transport)))
	binary.BigEndian.PutUint16(ip[4:], id)
	data := slices.Concat(make([]byte, 12), []byte{8, 0}, ip, transport)
	return evidence.Packet{
		Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC).Add(at), Interface: "veth0", Direction: direction,
		Link: evidence.LinkEthernet, Data: data, Length: len(data),
	}
}

// also is the packet as the other host captured it.
func also(p evidence.Packet, after time.Duration) evidence.Packet {
	p.Time, p.Interface = p.Time.Add(after), "veth1"
	p.Data = slices.Clone(p.Data)
	p.Data[14+8]-- // TTL
	p.Direction = map[string]string{"in": "out", "out": "in"}[p.Direction]
	return p
}

var (
	client = netip.MustParseAddrPort("10.192.0.2:15514")
	fake   = netip.MustParseAddrPort("10.208.0.2:27514")
)

// handshake is a TCP cell that passed.
func handshake() (*matrix.Evidence, []matrix.Transcript) {
	const us = time.Microsecond
	const syn, ack, psh = "\x02", "\x10", "\x18"
	sent := []evidence.Packet{
		frame(0, "out", 1, 6, client, fake, syn), frame(80*us, "in", 0, 6, fake, client, "\x12"), frame(110*us, "out",
			2, 6, client, fake, ack),
		frame(230*us, "in", 7, 6, fake, client, psh+"Server\n"), frame(320*us, "out", 3, 6, client, fake,
			psh+"Client\n"),
	}
	e := &matrix.Evidence{Local: evidence.Record{Packets: sent}}
	for _, p := range sent {
		took := 12 * us
		if p.Direction == "in" {
			took = -took
		}
		e.Remote.Packets = append(e.Remote.Packets, also(p, took))
	}
	e.Remote.Rules = []evidence.FilterRule{{Label: "c2",
		Text: "ip saddr 10.192.0.2 tcp dport 27514 tproxy ip to 127.0.0.1:27514", Before: &pfconf.Counters{},
		After: &pfconf.Counters{Matched: 3, Done: 3}}}
	return e, []matrix.Transcript{
		{Host: "local", Name: "client", Text: "connect sock: 10.192.0.2 15514\n>>> Client\n<<< Server\n"},
		{Host: "remote", Name: "server", Text: "listen sock: 127.0.0.1 27514\naccept from: 10.192.0.2 15514\n>>> Server\n<<< Client\nShutdown server\n"},
	}
}

// undelivered is a UDP cell whose packet the rule matched and no socket got, and an error that
// LOCAL did not capture.
func undelivered() (*matrix.Evidence, []matrix.Transcript) {
	out := frame(0, "out", 1, 17, client, fake, "Client\n")
	stray := frame(900*time.Microsecond, "out", 9, 1, fake, client, "\x03\x03\x00\x00\x00\x00\x00\x00")
	return &matrix.Evidence{
			Local: evidence.Record{
				Packets: []evidence.Packet{out, frame(time.Millisecond, "out", 2, 17, client, fake, "again\n")},
				Sockets: []evidence.SocketEntry{{Proto: "udp", Local: client, Remote: fake}},
				Answers: []evidence.Answer{{Command: "ip route get 10.208.0.2 from 10.192.0.2",
					Text: "10.208.0.2 from 10.192.0.2 via 10.188.1.2 dev veth0 uid 0"}},
			},
			Remote: evidence.Record{
				Packets: []evidence.Packet{also(out, 15*time.Microsecond), stray},
				Rules: []evidence.FilterRule{{
					Label: "c1", Text: "ip saddr 10.192.0.2 ip daddr 10.208.0.2 udp dport 27514 counter packets 1 bytes 35 tproxy ip to 127.0.0.1:27514 meta mark set 0x70660076 accept comment \"c1\"",
					Before: &pfconf.Counters{}, After: &pfconf.Counters{Matched: 1, Done: 1},
				}},
				States: []pfconf.State{{Family: pfconf.Inet, Number: 17, Near: fake, Far: client,
					Direction: pfconf.In, Phase: "UNREPLIED", Mark: 0x70660076}},
				Sockets: []evidence.SocketEntry{{Proto: "udp", Local: netip.MustParseAddrPort("127.0.0.1:27514"),
					Text: "transparent"}},
				Answers: []evidence.Answer{{Command: "ip route get 10.208.0.2 from 10.192.0.2 iif veth1 mark 0x70660076",
					Text: "RTNETLINK answers: No route to host"}},
				Moved:   []evidence.Moved{{Name: "Ip: InAddrErrors", By: 1}},
				Errors:  []string{"remote server: ICMP port unreachable from 10.208.0.2"},
				Missing: []string{"states: netlink: operation not permitted"},
			},
		}, []matrix.Transcript{
			{Host: "local", Name: "client", Text: "connect sock: 10.192.0.2 15514\nconnect peer: 10.208.0.2 27514\n>>> Client\n"},
			{Host: "remote", Name: "server", Text: "listen sock: 127.0.0.1 27514\n"},
		}
}

// withEvidence has results of all kinds, with what the hosts showed of two.
func withEvidence() (Run, []Summary) {
	run := with(run26, func(r *Run) {
		r.Hosts = []Machine{{Name: "local", Kernel: "Linux 6.1", System: "linux/amd64"},
			{Name: "remote", Kernel: "Linux 6.12.9", System: "linux/amd64"}}
		r.Targets = all70
	})
	results := explained()
	for _, r := range passes(all70) {
		if !slices.ContainsFunc(results, func(x matrix.Result) bool { return x.Name == r.Name }) {
			results = append(results, r)
		}
	}
	for i := range results {
		r := &results[i]
		switch r.Name {
		case "inet-args-tcp-reply":
			r.Evidence, r.Transcript = handshake()
		case "inet-args-udp-to":
			r.Verdict, r.Reason = matrix.Fail, matrix.NotDelivered
			r.Detail = `remote server: nothing arrived, "Client\n" from 10.192.0.2:15514 was due; REMOTE's rule matched 1 packet`
			r.Explanation = &explain.Explanation{
				Cause: "policy-rule-missing", Expected: "REMOTE's kernel gives the packet to the socket on 127.0.0.1:27514, because the rule marks it and a policy rule makes it local.",
				LastSeen: "at REMOTE's rule, which marked it",
				Likely:   "No policy rule sends packets with the mark to the table with the local route.",
				Check:    "ip rule show; ip route get 10.208.0.2 from 10.192.0.2 iif veth1 mark 0x70660076",
				Mend:     "ip rule add fwmark 0x70660076 lookup 28774",
			}
			r.Evidence, r.Transcript = undelivered()
		}
	}
	return run, Summaries(run, results)
}

// hostilePage has nasty text wherever the page can have text from elsewhere.
func hostilePage() (Run, []Summary) {
	run, summaries := nastyOutcomes()
	for i := range summaries {
		text := nasty[i]
		o := &summaries[i]
		o.Counts = text
		cell := evidence.Record{
			Rules:   []evidence.FilterRule{{Label: text, Text: text}},
			States:  []pfconf.State{{Direction: pfconf.In, Phase: text, Label: text}},
			Sockets: []evidence.SocketEntry{{Proto: text, State: text, Text: text}},
			Answers: []evidence.Answer{{Command: text, Text: text + "\n" + text}},
			Moved:   []evidence.Moved{{Name: text, By: 1}}, Errors: []string{text}, Missing: []string{text},
			Packets: []evidence.Packet{frame(0, "out", uint16(i), 17, client, fake, text),
				{Interface: text, Direction: text, Data: []byte(text)}},
		}
		o.Evidence = &matrix.Evidence{Local: cell, Remote: cell}
		o.Transcript = append(o.Transcript, matrix.Transcript{Host: "remote", Name: text,
			Text: "<<< " + logged([]byte(text)) + "\n" + text})
	}
	return run, summaries
}

// thirteen has as many failures, of three causes.
func thirteen() []matrix.Result {
	results := passes(all70)
	for i := range 13 {
		r := &results[5*i]
		r.Verdict, r.Reason = matrix.Fail, matrix.NotDelivered
		r.Detail = "remote server: nothing arrived; REMOTE's rule matched 1 packets"
		r.Explanation = &explain.Explanation{Cause: "no-policy-rule", Expected: "a socket on REMOTE gets it",
			LastSeen: "REMOTE's rule matched it", Likely: "packets with mark 0x1 are not sent to table 100",
			Check: "ip rule", Mend: "ip rule add fwmark 0x1 lookup 100"}
		r.Evidence, r.Transcript = undelivered()
		switch i % 5 {
		case 1:
			r.Reason, r.Detail, r.Explanation, r.Evidence = matrix.NoReply, "local client: nothing arrived", nil, nil
		case 2:
			r.Verdict, r.Reason, r.Detail = matrix.Error, matrix.AgentLost, "the connection to the agent ended"
			r.Explanation, r.Evidence, r.Transcript = nil, nil, nil
		}
	}
	return results
}

func htmlPages() map[string]func() (Run, []Summary) {
	pages := reports()
	pages["evidence"], pages["hostile-page"] = withEvidence, hostilePage
	pages["passed"] = func() (Run, []Summary) {
		run := with(run26, func(r *Run) { r.Targets = all70 })
		return run, Summaries(run, passes(all70))
	}
	pages["families"] = func() (Run, []Summary) {
		run, results := several(args26)
		return run, Summaries(run, results)
	}
	pages["thirteen"] = func() (Run, []Summary) {
		run := with(run26, func(r *Run) { r.Targets = all70 })
		return run, Summaries(run, thirteen())
	}
	pages["claims"] = func() (Run, []Summary) {
		var names []string
		for _, t := range matrix.Claims() {
			names = append(names, t.Name)
		}
		results := passes(names)
		for i, r := range unclaimed(48)[:48] {
			r.Name = names[i]
			results[i] = r
		}
		run := with(run26, func(r *Run) { r.Targets = names })
		return run, Summaries(run, results)
	}
	return pages
}

// TestHTML: the pages are as they were, and well-formed XML, so
// that no text can have opened or closed an element.
func TestHTML(t *testing.T) {
	for name, page := range htmlPages() {
		var b bytes.Buffer
		run, summaries := page()
		if err := WriteHTML(&b, run, summaries); err != nil {
			t.Fatal(err)
		}
		switch name {
		case "evidence", "hosts", "stats":
			golden(t, name+".html", b.Bytes())
		}
		assertClean(t, b.String())
		if proves := strings.Count(b.String(), ">It proves: "); proves != len(summaries) {
			t.Errorf("%s says of %d targets what they prove, and has %d", name, proves, len(summaries))
		}
		names := map[string]int{}
		ids := map[string]bool{}
		var hrefs []string
		d := xml.NewDecoder(&b)
		d.Strict = true
		for {
			token, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			start, ok := token.(xml.StartElement)
			if !ok {
				continue
			}
			names[start.Name.Local]++
			for _, a := range start.Attr {
				switch a.Name.Local {
				case "id":
					if ids[a.Value] {
						t.Errorf("%s: two elements have the id %s", name, a.Value)
					}
					ids[a.Value] = true
				case "href":
					hrefs = append(hrefs, a.Value)
				case "class", "lang", "charset", "http-equiv", "content", "name", "viewBox", "fill-rule", "d", "role",
					"tabindex", "scope", "colspan",
					"x", "y", "width", "height", "text-anchor", "aria-hidden", "aria-label", "aria-labelledby":
				default:
					t.Errorf("%s: attribute %s of %s", name, a.Name.Local, start.Name.Local)
				}
			}
		}
		for _, href := range hrefs {
			if !strings.HasPrefix(href, "#") || !ids[href[1:]] {
				t.Errorf("%s: a link leads to %q, which is not in the page", name, href)
			}
		}
		for _, element := range []string{"script", "img", "iframe", "object", "form", "link", "base", "foreignObject"} {
			if names[element] > 0 {
				t.Errorf("%s has a %s", name, element)
			}
		}
		if names["style"] != 1 || names["section"] != len(summaries) || names["h1"] != 1 {
			t.Errorf("%s has %v, and %d summaries", name, names, len(summaries))
		}
	}
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimPrefix(hex, "#"), 16, 32)
	if err != nil || len(hex) != 7 {
		t.Fatalf("%q is no colour", hex)
	}
	part := func(shift int, weight float64) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= 0.04045 {
			return weight * c / 12.92
		}
		return weight * math.Pow((c+0.055)/1.055, 2.4)
	}
	return part(16, 0.2126) + part(8, 0.7152) + part(0, 0.0722)
}

// TestContrast: text has the contrast that WCAG 2.2 AA wants (4.5), and 3 what else must be
// seen, in both modes.
func TestContrast(t *testing.T) {
	modes := map[string]map[string]string{"light": {}, "dark": {}}
	for _, c := range colours {
		modes["light"][c.name], modes["dark"][c.name] = c.light, c.dark
	}
	type pair struct {
		front, back string
		want        float64
	}
	pairs := []pair{
		{"text", "back", 7}, {"text", "panel", 7}, {"muted", "back", 4.5}, {"link", "back", 4.5}, {"fail", "back", 4.5},
		{"muted", "back", 3}, // lanes
	}
	for _, v := range append([]matrix.Verdict{""}, matrix.Verdicts...) {
		pairs = append(pairs, pair{class(v), class(v) + "-back", 4.5}, pair{class(v), "back", 3}) // with its border
	}
	for mode, colour := range modes {
		for _, p := range pairs {
			a, b := luminance(t, colour[p.front]), luminance(t, colour[p.back])
			if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < p.want {
				t.Errorf("%s: %s on %s has contrast %.2f, want %v", mode, p.front, p.back, ratio, p.want)
			}
		}
	}
	// All that the rules use is in the table.
	for _, m := range regexp.MustCompile(`var\(--([a-z-]+)\)`).FindAllStringSubmatch(styleSheet, -1) {
		if modes["light"][m[1]] == "" {
			t.Errorf("the colour %s is not in the table", m[1])
		}
	}
}

// TestShapes: each verdict has a shape of its own.
func TestShapes(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range matrix.Verdicts {
		if shapes[v] == "" || seen[shapes[v]] {
			t.Errorf("%s has no shape of its own", v)
		}
		seen[shapes[v]] = true
	}
}

// rungs are a ladder's in words.
func rungs(l *ladder) (lines []string) {
	for _, r := range l.rungs {
		line := fmt.Sprintf("%d>%d %s", r.from, r.to, r.text)
		if r.timed {
			line = rungTime(r.at) + " " + line
		}
		if r.lost {
			line += " LOST"
		}
		if r.control {
			line += " CONTROL"
		}
		lines = append(lines, line)
	}
	return lines
}

func TestLadder(t *testing.T) {
	e, transcripts := handshake()
	assertRungs(t, newLadder(e, transcripts),
		"0.000 ms 0>2 TCP SYN  10.192.0.2:15514 > 10.208.0.2:27514",
		"0.068 ms 2>0 TCP SYN ACK  10.208.0.2:27514 > 10.192.0.2:15514",
		"0.110 ms 0>2 TCP ACK  10.192.0.2:15514 > 10.208.0.2:27514",
		"2>3 server: accept from: 10.192.0.2 15514",
		"3>2 server: >>> Server",
		`0.218 ms 2>0 TCP PSH ACK, 7 bytes  10.208.0.2:27514 > 10.192.0.2:15514  "Server"`,
		`0.320 ms 0>2 TCP PSH ACK, 7 bytes  10.192.0.2:15514 > 10.208.0.2:27514  "Client"`,
		"2>3 server: <<< Client",
		"2>2 the rule matched 3 packets, its action served 3",
	)
	// REMOTE's clock is an hour ahead: the same, give or take half of the way.
	shifted, _ := handshake()
	for i := range shifted.Remote.Packets {
		shifted.Remote.Packets[i].Time = shifted.Remote.Packets[i].Time.Add(time.Hour)
	}
	if a, b := rungs(newLadder(e, transcripts)), rungs(newLadder(shifted, transcripts)); !slices.Equal(a, b) {
		t.Errorf("with another clock\n%q\nwant\n%q", b, a)
	}
	e, transcripts = undelivered()
	assertRungs(t, newLadder(e, transcripts),
		`0.000 ms 0>2 UDP, 7 bytes  10.192.0.2:15514 > 10.208.0.2:27514  "Client"`,
		`0.900 ms 2>1 ICMP port unreachable  10.208.0.2 > 10.192.0.2; not in LOCAL's capture LOST`,
		`1.000 ms 0>1 UDP, 6 bytes  10.192.0.2:15514 > 10.208.0.2:27514  "again"; not in REMOTE's capture LOST`,
		"2>2 the rule matched 1 packet, its action served 1",
	)
	// Where REMOTE could not capture, nothing is called lost.
	e.Remote.Packets, e.Remote.Missing = nil, []string{"packets: operation not permitted"}
	for _, line := range rungs(newLadder(e, transcripts)) {
		if strings.Contains(line, "LOST") {
			t.Error(line)
		}
	}
	// Too many packets are counted.
	e.Local.Packets = nil
	for i := range maxRungs + 5 {
		e.Local.Packets = append(e.Local.Packets, frame(time.Duration(i), "out", uint16(i), 17, client, fake, "x"))
	}
	if l := newLadder(e, nil); l.more != 5 || len(l.rungs) != maxRungs+1 {
		t.Errorf("%d rungs and %d more", len(l.rungs), l.more)
	}
}

func assertRungs(t *testing.T, l *ladder, want ...string) {
	t.Helper()
	if got := rungs(l); !slices.Equal(got, want) {
		t.Errorf("rungs\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// FuzzHTML: whatever text and packets came from elsewhere, the page has the same elements.
func FuzzHTML(f *testing.F) {
	for _, text := range nasty {
		f.Add(text, []byte(text), uint16(evidence.LinkEthernet))
	}
	elements := func(text string, packet []byte, link uint16) (n int, err error) {
		p := evidence.Packet{Link: evidence.LinkType(link), Data: packet, Direction: "out"}
		cell := evidence.Record{Answers: []evidence.Answer{{Command: text, Text: text}}, Packets: []evidence.Packet{p}}
		o := Summary{Host: text, Result: matrix.Result{Name: text, Verdict: matrix.Fail, Reason: text, Detail: text}}
		o.Evidence = &matrix.Evidence{Local: cell}
		o.Transcript = []matrix.Transcript{{Host: "local", Name: text, Text: text}}
		var b bytes.Buffer
		if err := WriteHTML(&b, run26, []Summary{o}); err != nil {
			return 0, err
		}
		if printed := printable(strings.ReplaceAll(b.String(), "\n", "")); printed != strings.ReplaceAll(b.String(),
			"\n", "") {
			return 0, fmt.Errorf("not printable: %q", printed)
		}
		d := xml.NewDecoder(&b)
		for {
			switch token, err := d.Token(); token.(type) {
			case nil:
				if err == io.EOF {
					err = nil
				}
				return n, err
			case xml.StartElement:
				n++
			case xml.Comment, xml.ProcInst:
				return n, fmt.Errorf("a comment or an instruction: %v", token)
			}
		}
	}
	want, err := elements("x", []byte("x"), 0)
	if err != nil || want < 30 {
		f.Fatal(want, err)
	}
	f.Fuzz(func(t *testing.T, text string, packet []byte, link uint16) {
		if got, err := elements(text, packet, link); err != nil || got != want {
			t.Errorf("%d elements, want %d: %v", got, want, err)
		}
	})
}
