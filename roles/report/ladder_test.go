package report

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/evidence"
	"pfdivert/matrix/explain"
	"pfdivert/pfconf"
)

// inHex is a packet as divert sockets log it.
func inHex(p evidence.Packet) string { return hex.EncodeToString(p.Data[14:]) }

// echoBody is the ICMP header and payload of an echo.
func echoBody(kind byte, id, seq uint16, payload string) string {
	return string([]byte{kind, 0, 0, 0, byte(id >> 8), byte(id), byte(seq >> 8), byte(seq)}) + payload
}

// TestLadderSockets: what REMOTE's sockets logged is put to the packet that carried it and not to a
// control's, which has the same text. The transcripts are those of real runs.
func TestLadderSockets(t *testing.T) {
	const ms = time.Millisecond
	log := func(host, name, text string) matrix.Transcript {
		return matrix.Transcript{Host: host, Name: name, Text: text}
	}
	at := func(p evidence.Packet) evidence.Packet { return also(p, 10*time.Microsecond) } // on the other host
	local, remote := netip.MustParseAddrPort("10.192.0.5:9979"), netip.MustParseAddrPort("10.188.1.2:21979")
	control := netip.MustParseAddrPort("10.192.0.5:49425")
	fake := netip.MustParseAddrPort("10.208.0.5:21979")
	udp := func(after time.Duration, id uint16, from, to netip.AddrPort, text string) evidence.Packet {
		return frame(after, "out", id, 17, from, to, text)
	}
	raw := func(after time.Duration, id uint16, from, to netip.AddrPort, text string) evidence.Packet {
		return frame(after, "out", id, 254, from, to, text)
	}
	type sent struct {
		packet evidence.Packet
		remote bool // REMOTE sent it
	}
	tests := []struct {
		name        string
		packets     []sent
		transcripts []matrix.Transcript
		sockets     evidence.Record // LOCAL's
		want        []string
	}{
		{"udp-to", []sent{{udp(0, 1, control, fake, "Client\n"), false},
			{udp(9*ms, 2, local, fake, "Client\n"), false}},
			[]matrix.Transcript{
				log("local", "client", "connect sock: 10.192.0.5 9979\nconnect peer: 10.208.0.5 21979\n>>> Client\n"),
				log("local", "control", "connect sock: 10.192.0.5 49425\nconnect peer: 10.208.0.5 21979\n>>> Client\n"),
				log("remote", "server", "listen sock: 127.0.0.1 21979\nrecv from: 10.192.0.5 9979\norig dst: 10.208.0.5 21979\n<<< Client\n"),
			}, evidence.Record{}, []string{
				`0.000 ms 0>2 control: UDP, 7 bytes  10.192.0.5:49425 > 10.208.0.5:21979  "Client" CONTROL`,
				`9.000 ms 0>2 UDP, 7 bytes  10.192.0.5:9979 > 10.208.0.5:21979  "Client"`,
				"2>3 server: <<< Client",
			}},
		{"rip-to", []sent{{raw(0, 1, local, fake, "Client\n"), false}, {raw(9*ms, 2, local, fake, "Client\n"), false}},
			[]matrix.Transcript{
				log("local", "client", "connect sock: 10.192.0.5 0\n>>> Client\n"), log("local", "control",
					"connect sock: 10.192.0.5 0\n>>> Client\n"),
				log("remote", "server", "listen sock: 127.0.0.1 0\nrecv from: 10.192.0.5 0\norig dst: 10.208.0.5 0\n<<< Client\n"),
			}, evidence.Record{}, []string{
				`0.000 ms 0>2 control: IP protocol 254, 7 bytes  10.192.0.5 > 10.208.0.5  "Client" CONTROL`,
				`9.000 ms 0>2 IP protocol 254, 7 bytes  10.192.0.5 > 10.208.0.5  "Client"`,
				"2>3 server: <<< Client",
			}},
		{"rip-reply-to", []sent{
			{raw(0, 1, fake, local, "Client\n"), true}, {raw(1*ms, 1, local, fake, "Server\n"), false},
			{raw(2*ms, 2, fake, local, "Client\n"), true}, {raw(3*ms, 2, local, fake, "Server\n"), false},
		}, []matrix.Transcript{
			log("remote", "client", "connect sock: 10.208.0.5 0\n>>> Client\nrecv from: 10.192.0.5 0\n<<< Server\n"),
			log("remote", "control", "connect sock: 10.208.0.5 0\n>>> Client\n"),
		}, evidence.Record{}, []string{
			"3>2 control: >>> Client",
			`0.000 ms 2>0 control: IP protocol 254, 7 bytes  10.208.0.5 > 10.192.0.5  "Client" CONTROL`,
			`1.000 ms 0>2 control: IP protocol 254, 7 bytes  10.192.0.5 > 10.208.0.5  "Server" CONTROL`,
			"3>2 client: >>> Client",
			`2.000 ms 2>0 IP protocol 254, 7 bytes  10.208.0.5 > 10.192.0.5  "Client"`,
			`3.000 ms 0>2 IP protocol 254, 7 bytes  10.192.0.5 > 10.208.0.5  "Server"`,
			"2>3 client: <<< Server",
		}},
		{"icmp-reply-to", []sent{
			{frame(0, "out", 1, 1, fake, local, echoBody(8, 42753, 1, "Client\n")),
				true}, {frame(1*ms, "out", 1, 1, local, fake, echoBody(0, 42753, 1, "Client\n")), false},
			{frame(2*ms, "out", 2, 1, fake, local, echoBody(8, 9985, 1, "Client\n")),
				true}, {frame(3*ms, "out", 2, 1, local, fake, echoBody(0, 9985, 1, "Client\n")), false},
		}, []matrix.Transcript{
			log("remote", "client", "connect sock: 10.208.0.5 0\n>>> icmp type 8 code 0 id 9985 seq 1 Client\nrecv from: 10.192.0.5 0\n<<< icmp type 0 code 0 id 9985 seq 1 Client\n"),
			log("remote", "control", "connect sock: 10.208.0.5 0\n>>> icmp type 8 code 0 id 42753 seq 1 Client\n"),
		}, evidence.Record{}, []string{
			"3>2 control: >>> icmp type 8 code 0 id 42753 seq 1 Client",
			`0.000 ms 2>0 control: ICMP echo request, id 42753, seq 1  10.208.0.5 > 10.192.0.5  "Client" CONTROL`,
			`1.000 ms 0>2 control: ICMP echo reply, id 42753, seq 1  10.192.0.5 > 10.208.0.5  "Client" CONTROL`,
			"3>2 client: >>> icmp type 8 code 0 id 9985 seq 1 Client",
			`2.000 ms 2>0 ICMP echo request, id 9985, seq 1  10.208.0.5 > 10.192.0.5  "Client"`,
			`3.000 ms 0>2 ICMP echo reply, id 9985, seq 1  10.192.0.5 > 10.208.0.5  "Client"`,
			"2>3 client: <<< icmp type 0 code 0 id 9985 seq 1 Client",
		}},
		// A connection that is not made leaves no line: the control's port is that of its socket.
		{"tcp-to", []sent{{frame(0, "out", 1, 6, control, fake, "\x02"), false},
			{frame(9*ms, "out", 2, 6, local, fake, "\x02"), false}},
			[]matrix.Transcript{log("local", "client", "Shutdown client\n"),
				log("local", "control", "Shutdown client\n"), log("remote", "server",
					"listen sock: 127.0.0.1 21979\n")},
			evidence.Record{Sockets: []evidence.SocketEntry{{Proto: "tcp", Local: control, State: "closed",
				Text: "the cell's control"}}}, []string{
				"0.000 ms 0>2 control: TCP SYN  10.192.0.5:49425 > 10.208.0.5:21979 CONTROL",
				"9.000 ms 0>2 TCP SYN  10.192.0.5:9979 > 10.208.0.5:21979",
			}},
		// The server got the control, which nothing diverted, and what the divert socket
		// reinjected.
		{"udp-packet-in", []sent{{udp(0, 1, control, remote, "Client\n"), false},
			{udp(9*ms, 2, local, remote, "Client\n"), false}},
			[]matrix.Transcript{
				log("local", "control", "connect sock: 10.192.0.5 49425\n>>> Client\n"),
				log("remote", "packet", "divert sock: 0.0.0.0 26603\n<<< "+inHex(at(udp(0, 2, local, remote,
					"Client\n")))+"\n>>> "+inHex(at(udp(0, 2, local, remote, "Packet\n")))+"\nShutdown packet\n"),
				log("remote", "server", "listen sock: 10.188.1.2 21979\nrecv from: 10.192.0.5 49425\n<<< Client\nrecv from: 10.192.0.5 9979\n<<< Packet\n"),
			}, evidence.Record{}, []string{
				`0.000 ms 0>2 control: UDP, 7 bytes  10.192.0.5:49425 > 10.188.1.2:21979  "Client" CONTROL`,
				"2>3 server: <<< Client",
				`9.000 ms 0>2 UDP, 7 bytes  10.192.0.5:9979 > 10.188.1.2:21979  "Client"`,
				`2>3 packet: <<< UDP, 7 bytes  10.192.0.5:9979 > 10.188.1.2:21979  "Client"`,
				`3>2 packet: >>> UDP, 7 bytes  10.192.0.5:9979 > 10.188.1.2:21979  "Packet"`,
				"2>3 server: <<< Packet",
			}},
		{"rip-packet-out", []sent{{raw(0, 1, remote, local, "Client\n"), true},
			{raw(9*ms, 2, remote, local, "Packet\n"), true}},
			[]matrix.Transcript{
				log("remote", "client", "connect sock: 10.188.1.2 0\n>>> Client\n"), log("remote", "control",
					"connect sock: 10.188.1.2 0\n>>> Client\n"),
				log("remote", "packet", "divert sock: 0.0.0.0 26603\n<<< "+inHex(raw(0, 2, remote, local,
					"Client\n"))+"\n>>> "+inHex(raw(0, 2, remote, local, "Packet\n"))+"\n"),
			}, evidence.Record{}, []string{
				"3>2 control: >>> Client",
				`0.000 ms 2>0 control: IP protocol 254, 7 bytes  10.188.1.2 > 10.192.0.5  "Client" CONTROL`,
				"3>2 client: >>> Client",
				`2>3 packet: <<< IP protocol 254, 7 bytes  10.188.1.2 > 10.192.0.5  "Client"`,
				`3>2 packet: >>> IP protocol 254, 7 bytes  10.188.1.2 > 10.192.0.5  "Packet"`,
				`9.000 ms 2>0 IP protocol 254, 7 bytes  10.188.1.2 > 10.192.0.5  "Packet"`,
			}},
		// What a divert socket keeps; of a long packet the beginning is logged.
		{"not reinjected", []sent{{udp(0, 2, local, remote, "Client\n"), false}},
			[]matrix.Transcript{log("remote", "packet",
				"divert sock: 0.0.0.0 26603\n<<< 45zz\n<<< \n<<< "+inHex(udp(0, 2, local, remote,
					"Client\n"))[:60]+"...\n")},
			evidence.Record{}, []string{
				`0.000 ms 0>2 UDP, 7 bytes  10.192.0.5:9979 > 10.188.1.2:21979  "Client"`,
				`2>3 packet: <<< UDP, 7 bytes  10.192.0.5:9979 > 10.188.1.2:21979  "Cl"`,
			}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := &matrix.Evidence{Local: test.sockets}
			for _, s := range test.packets {
				own, other := &e.Local.Packets, &e.Remote.Packets
				if s.remote {
					own, other = other, own
				}
				*own, *other = append(*own, s.packet), append(*other, at(s.packet))
			}
			assertRungs(t, newLadder(e, test.transcripts), test.want...)
		})
	}
}

// TestLadderLastSeen: the missing packet's end is marked where the explanation saw it.
func TestLadderLastSeen(t *testing.T) {
	for text, want := range map[string]lane{
		"REMOTE's rule matched it and its action was carried out; it is not at the socket":         laneFilter,
		"it was on LOCAL's interface and did not come to REMOTE's":                                 laneWire,
		"REMOTE's client sent it, and the rule matched no packet":                                  laneSocket,
		"it is at REMOTE's socket; its answer came to LOCAL's interface and is not at the client":  laneLocal,
		"it is at REMOTE's socket; its answer left REMOTE's interface and did not come to LOCAL's": laneWire,
		"it is at REMOTE's socket; its answer is not on REMOTE's interface":                        laneFilter,
	} {
		e, transcripts := undelivered()
		l := newLadder(e, transcripts)
		l.addLastSeen(&explain.Explanation{LastSeen: text})
		if last := l.rungs[len(l.rungs)-1]; last.from != want || last.to != want || !last.lost ||
			last.text != "last seen: "+text {
			t.Errorf("%s: %+v", text, last)
		}
	}
	empty := &ladder{}
	empty.addLastSeen(&explain.Explanation{LastSeen: "x"})
	e, transcripts := handshake()
	passed := newLadder(e, transcripts)
	n := len(passed.rungs)
	passed.addLastSeen(nil)
	if len(empty.rungs) != 0 || len(passed.rungs) != n {
		t.Error("something was last seen where nothing is missing")
	}
}

// TestLadderSays: the figure's caption and text name what the diagram has.
func TestLadderSays(t *testing.T) {
	e, transcripts := handshake()
	for i := range e.Remote.Packets {
		e.Remote.Packets[i].Time = e.Remote.Packets[i].Time.Add(-90 * time.Second)
	}
	e.Remote.Rules = append(e.Remote.Rules, evidence.FilterRule{Label: "c2-packet",
		After: &pfconf.Counters{Matched: 1}})
	transcripts = append(transcripts, matrix.Transcript{Host: "local", Name: "control",
		Text: fmt.Sprintf("connect sock: %v %d\n>>> Client\n", client.Addr(), client.Port())})
	p := &page{run: run26}
	p.evidence(0, Summary{Result: matrix.Result{Name: "x", Evidence: e, Transcript: transcripts}})
	for _, want := range []string{
		"A control is sent before the rule is loaded.", "REMOTE&#39;s clock is 1 min 30 s behind LOCAL&#39;s; that is taken off.",
		"the rule c2 matched 3 packets", "the rule c2-packet matched 1 packet,", `<g class="control">`,
	} {
		if !strings.Contains(p.b.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// TestManyPackets: of many packets some are drawn and listed, and the others counted.
func TestManyPackets(t *testing.T) {
	var cell evidence.Record
	for i := range maxPacketRows + 800 {
		cell.Packets = append(cell.Packets, frame(time.Duration(i)*time.Microsecond, "out", uint16(i), 17, client,
			fake, "x"))
	}
	p := &page{run: run26}
	p.evidence(0, Summary{Result: matrix.Result{Name: "x", Evidence: &matrix.Evidence{Local: cell}}})
	text := p.b.String()
	if rows := strings.Count(text, "<tr>"); rows != maxPacketRows+2 ||
		!strings.Contains(text, "<td>and 800 more</td>") ||
		!strings.Contains(text, fmt.Sprintf("Packets on LOCAL (%d)", len(cell.Packets))) {
		t.Errorf("%d rows", rows)
	}
	if drawn := strings.Count(text, "<g "); drawn != maxRungs ||
		!strings.Contains(text, fmt.Sprintf("%d more packets are not drawn", len(cell.Packets)-maxRungs)) {
		t.Errorf("%d rungs", drawn)
	}
}
