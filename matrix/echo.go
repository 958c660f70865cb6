package matrix

import (
	"context"
	"net/netip"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// echo is an exchange of ICMP or ICMPv6 echoes.
type echo struct{ *exchange }

// echoTypes are the ICMP types of echo request and reply: RFC 792, RFC 4443.
var echoTypes = map[pfconf.Family][2]uint8{pfconf.Inet: {8, 0}, pfconf.Inet6: {128, 129}}

// header is the ICMP header of the nth request or its reply.
func (x *exchange) header(reply int, n uint16) *script.EchoHeader {
	return &script.EchoHeader{Type: echoTypes[x.Family][reply], ID: x.client + n - 1, Seq: n, Checksum: true}
}

// requests runs icmp-to. What it proves, step by step:
//
//  1. REMOTE has a raw ICMP socket for what is diverted.
//  2. Control: before the rule is there, LOCAL sends an echo request to FAKE. It
//     must not reach the server's socket.
//  3. The rule is loaded.
//  4. LOCAL sends one echo request to FAKE. Exactly that one is waiting at the
//     server, with its id, sequence number and checksum, from LOCAL to FAKE.
//  5. The rule counted one packet. No one answered: nothing is waiting at the client.
//
// Where the kernel is known to answer a diverted request itself, a second socket on LOCAL hears
// replies from any address. The target is a SKIP when the rule counted the request, the
// server's socket is silent and a reply came: that proves it.
func (x echo) requests(ctx context.Context, withControl bool) error {
	from, to := x.flowEnds()
	client, server := "client"+x.part, "server"+x.part

	if err := x.openEnds(ctx); err != nil {
		return err
	}
	witness := x.kernel.AnswersEcho && x.Family == pfconf.Inet
	if witness {
		there := x.local.request()
		opened := there.open("witness", x.clientSpec())
		if err := there.run(ctx); err != nil {
			return err
		}
		if err := x.opened(opened); err != nil {
			return err
		}
	}
	var c control
	if withControl {
		if _, err := x.sendControl(ctx, false); err != nil {
			return err
		}
		c.kill = []pfconf.Flow{x.controlFlow(from)}
		c.judge = x.silentAt(x.remote, server, "it was sent before the rule was there")
	}
	if err := x.loadBehind(ctx, c); err != nil {
		return err
	}

	there := x.local.request()
	left := there.send(client, script.ClientLine, 1)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := left.unsent(); err != nil {
		return err
	}

	at := x.remote.request()
	there = x.local.request()
	received := at.rest(server)
	answers := there.rest(client)
	var heard *stepResult
	if witness {
		heard = there.rest("witness")
	}
	ending := x.tearDown(at, there, client, server)
	at.wantMessages(received, 1)
	there.wantMessages(answers, 0)
	x.wantCounters(ending, at, there, 1, 0)
	if err := x.finish(ctx, at, there, false); err != nil {
		return err
	}
	x.note(ending)
	if witness {
		if err := x.judgeWitness(received, heard); err != nil {
			return err
		}
	}
	if err := x.judge(received, want{script.ClientLine, from, to, NotDelivered, x.header(0, 1)}); err != nil {
		return err
	}
	if err := x.judge(answers); err != nil {
		return err
	}
	return x.judgeCounters(1, 0)
}

// judgeWitness is a SKIP when it is proven that the kernel took the diverted request for itself:
// the rule matched it alone, the server's socket is silent, and the witness heard the one reply to
// it.
func (x echo) judgeWitness(received, heard *stepResult) error {
	if received.Err != nil || len(received.Messages) > 0 || heard.Err != nil || len(heard.Messages) != 1 ||
		!x.counterKnown || x.counters.Matched != 1 {
		return nil
	}
	m := heard.Messages[0]
	w := want{line: script.ClientLine, from: m.From, echo: x.header(1, 1)}
	if m.From.Addr() == x.Fake || judgeMessage(heard.where, m, w) != nil {
		return nil
	}
	return skipped("REMOTE's kernel answered the diverted echo request itself, from %v, and no raw socket saw it: "+
		"the rule matched 1 packet, the socket on %v heard nothing, and the reply came to LOCAL", m.From.Addr(), x.Fake)
}

// replies runs icmp-reply-to and icmp-reply-reuse. What it proves, step by
// step:
//
//  1. REMOTE has a raw ICMP socket bound to FAKE.
//  2. Control: before the rule is there, a socket like it sends an echo
//     request to LOCAL, whose kernel reflects it. The reply must not come back.
//  3. The rule is loaded.
//  4. The socket sends one echo request; reply-reuse: a second one with another id,
//     which needs a second state for the same socket. The replies, and nothing else, are
//     waiting at the socket, with id, sequence number and checksum, from LOCAL to FAKE.
//  5. The rule counted each request and each reply once.
func (x echo) replies(ctx context.Context, withControl bool) error {
	from, to := x.flowEnds()
	client := "client" + x.part

	spec := x.clientSpec()
	there := x.remote.request()
	opened := []*stepResult{there.open(client, spec), there.connect(client, spec)}
	var heard, sent *stepResult
	var kill []pfconf.Flow
	if withControl && x.kernel.controlReplies(x.Proto) {
		spec := x.controlSpec()
		opened = append(opened, there.open("control", spec), there.connect("control", spec))
		sent = there.send("control", script.ClientLine, 1)
		there.fence()
		heard = there.rest("control")
		there.close("control")
		kill = append(kill, x.controlFlow(netip.AddrPort{}))
	}
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened...); err != nil {
		return err
	}
	if heard != nil {
		if err := unanswered(sent); err != nil {
			return err
		}
		if err := x.silent(heard, "LOCAL's reply came back before the rule was there"); err != nil {
			return err
		}
	}
	if err := x.load(ctx, kill...); err != nil {
		return err
	}

	requests := uint16(1)
	if x.mode.requests > 1 {
		requests = 2
	}
	there = x.remote.request()
	var wants []want
	var left []*stepResult
	for n := uint16(1); n <= requests; n++ {
		left = append(left, there.send(client, script.ClientLine, n))
		wants = append(wants, want{script.ClientLine, to, from, NoReply, x.header(1, n)})
	}
	there.fence()
	returned := there.rest(client)
	at := x.local.request()
	ending := x.tearDown(at, there, client, "")
	there.wantMessages(returned, int(requests))
	x.wantCounters(ending, at, there, uint64(requests), uint64(requests))
	if err := x.finish(ctx, there, at, false); err != nil {
		return err
	}
	x.note(ending)
	for _, a := range left {
		if err := a.unsent(); err != nil {
			return err
		}
	}
	if err := x.judge(returned, wants...); err != nil {
		return err
	}
	return x.judgeCounters(uint64(requests), uint64(requests))
}
