package matrix

import (
	"context"
	"fmt"
	"strings"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// Diverted connections behave as direct ones: each of the runs below has an exchange between a
// client and a server first with no rule, at REMOTE's own address, and then diverted, at FAKE, and
// compares what the two ends saw.
//
//  1. A client of LOCAL connects to a server at REMOTE's own address. What the two see is what is
//     wanted; else the hosts are at fault, and the target is an ERROR.
//  2. Control: before the rule is there, a client like the cell's does not reach the cell's server.
//  3. The client connects to FAKE. What the two ends see is the same, byte for byte.

// exchangeParts are what one end of a connection does after the other, and what it sees of it.
type exchangeParts struct {
	*claimRun
	client, server string // the sockets' names
	seen           []string
}

// on has one end do something, and notes what it saw.
func (e *exchangeParts) on(ctx context.Context, end string, steps ...script.Step) error {
	s := e.local
	if end == e.server {
		s = e.remote
	}
	r := s.request()
	var results []*stepResult
	for _, st := range steps {
		results = append(results, r.add(st, exchangeEnds))
	}
	r.fence()
	if err := r.run(ctx); err != nil {
		return err
	}
	for _, a := range results {
		switch {
		case a.Err != nil:
			e.seen = append(e.seen, a.Err.Code)
		case len(a.Messages) > 0:
			e.seen = append(e.seen, fmt.Sprintf("%q", a.Messages[0].Data))
		}
	}
	return nil
}

// exchangeEnds are how steps of an exchange may end that are compared with another's.
var exchangeEnds = lostOr("EINVAL", "EBADF", "ENOTCONN", "EAGAIN", script.CodeUnsupported)

// exchanges runs an exchange directly and diverted. begins, if not nil, are the client's first
// steps, in place of connecting.
func (x *claimRun) exchangesAlike(ctx context.Context, wanted string, spec script.Stream,
	begins func(end string) script.Step, run func(context.Context, *exchangeParts) error) error {
	direct, diverted := spec, spec
	direct.Ends = script.Ends{Role: script.Server, Local: x.redirected()}
	diverted.Ends = x.serverSpec().(script.Stream).Ends
	at := x.remote.request()
	opened := at.open("direct", direct)
	if err := at.run(ctx); err != nil {
		return err
	}
	if err := x.opened(opened); err != nil {
		return err
	}
	saw, err := x.exchangeWith(ctx, x.directClient(), spec.Window, begins, "direct", run)
	if err != nil {
		return err
	}
	if strings.Contains(saw, script.CodeUnsupported) {
		return skipped("LOCAL: its system can't do this")
	}
	if saw != wanted {
		return broken(ControlLost, "without a rule, at REMOTE's own address, the two ends saw %s, not %s", saw, wanted)
	}
	if err := x.beginServed(ctx, diverted); err != nil {
		return err
	}
	if saw, err = x.exchangeWith(ctx, x.clientSpec(), spec.Window, begins, "server", run); err != nil {
		return err
	}
	if saw != wanted {
		return failed(WrongData, "the ends of the diverted connection saw %s; of a direct one they saw %s", saw, wanted)
	}
	return nil
}

// exchangeWith connects a client to a server and has them exchange what run says. It returns what
// they saw.
func (x *claimRun) exchangeWith(ctx context.Context, spec script.Socket, window int,
	begins func(end string) script.Step, server string,
	run func(context.Context, *exchangeParts) error) (string, error) {
	e := &exchangeParts{claimRun: x, client: "client-of-" + server, server: server}
	s := spec.(script.Stream)
	s.Window = window
	there := x.local.request()
	opened := there.open(e.client, s)
	var connecting *stepResult
	if begins == nil {
		connecting = there.connect(e.client, s)
	} else {
		connecting = there.add(begins(e.client), exchangeEnds)
	}
	there.fence()
	connected := there.connected(e.client)
	if err := there.run(ctx); err != nil {
		return "", err
	}
	switch {
	case opened.Err != nil || begins == nil && connecting.Err != nil:
		return "", x.opened(opened, connecting)
	case connecting.Err != nil:
		return connecting.Err.Code, nil
	}
	x.used = append(x.used, usedFlow{x.controlFlow(connecting.Local), true, time.Now()})
	if connected.Err != nil {
		return "", failed(NotDelivered, "%s: the connection was not answered (%s)", connected.where, connected.Err.Text)
	}
	if x.omit[Exchange] && server == "server" {
		if err := e.on(ctx, e.client, script.CloseConn{Socket: e.client}); err != nil {
			return "", err
		}
	}
	if err := e.on(ctx, server, script.Accept{Socket: server}); err != nil {
		return "", err
	}
	if err := run(ctx, e); err != nil {
		return "", err
	}
	there = x.local.request()
	there.close(e.client)
	there.fence()
	at := x.remote.request()
	at.closeConn(server)
	if err := there.run(ctx); err != nil {
		return "", err
	}
	return strings.Join(e.seen, " "), at.run(ctx)
}

// halfClosed: an end that has said that it sends no more still receives.
func (x *claimRun) halfClosed(ctx context.Context) error {
	return x.exchangesAlike(ctx, `"Client\n" eof "Server\n" "Server\n" eof`, script.Stream{}, nil,
		func(ctx context.Context, e *exchangeParts) error {
			c, s := e.client, e.server
			line := script.Send{Socket: c, Data: script.ClientLine}
			if err := e.on(ctx, c, line, script.Shutdown{Socket: c}); err != nil {
				return err
			}
			answer := script.Send{Socket: s, Data: script.ServerLine}
			if err := e.on(ctx, s, script.Receive{Socket: s}, script.Receive{Socket: s}, answer, answer,
				script.Shutdown{Socket: s}); err != nil {
				return err
			}
			return e.on(ctx, c, script.Receive{Socket: c}, script.Receive{Socket: c}, script.Receive{Socket: c})
		})
}

// resets: an end that resets the connection ends it at the other one.
func (x *claimRun) resets(ctx context.Context) error {
	return x.exchangesAlike(ctx, `"Client\n" "Server\n" ECONNRESET`, script.Stream{}, nil,
		func(ctx context.Context, e *exchangeParts) error {
			c, s := e.client, e.server
			if err := e.on(ctx, c, script.Send{Socket: c, Data: script.ClientLine}); err != nil {
				return err
			}
			answer := script.Send{Socket: s, Data: script.ServerLine}
			if err := e.on(ctx, s, script.Receive{Socket: s}, answer); err != nil {
				return err
			}
			if err := e.on(ctx, c, script.Receive{Socket: c}, script.Reset{Socket: c}); err != nil {
				return err
			}
			return e.on(ctx, s, script.Receive{Socket: s})
		})
}

// urgent: urgent data comes as that, between what was sent before and after it.
func (x *claimRun) urgent(ctx context.Context) error {
	return x.exchangesAlike(ctx, `"Client\n" "!" "Client\n"`, script.Stream{}, nil,
		func(ctx context.Context, e *exchangeParts) error {
			c, s := e.client, e.server
			line := script.Send{Socket: c, Data: script.ClientLine}
			if err := e.on(ctx, c, line, script.SendUrgent{Socket: c, Data: "!"}, line); err != nil {
				return err
			}
			return e.on(ctx, s, script.Receive{Socket: s}, script.ReceiveUrgent{Socket: s}, script.Receive{Socket: s})
		})
}

// fastOpened: what a SYN carries comes to the server, once.
func (x *claimRun) fastOpened(ctx context.Context) error {
	begins := func(end string) script.Step { return script.FastOpen{Socket: end, Data: script.ClientLine} }
	return x.exchangesAlike(ctx, `"Client\n" "Server\n" eof`, script.Stream{}, begins,
		func(ctx context.Context, e *exchangeParts) error {
			c, s := e.client, e.server
			answer := script.Send{Socket: s, Data: script.ServerLine}
			if err := e.on(ctx, s, script.Receive{Socket: s}, answer); err != nil {
				return err
			}
			if err := e.on(ctx, c, script.Receive{Socket: c}, script.Shutdown{Socket: c}); err != nil {
				return err
			}
			return e.on(ctx, s, script.Receive{Socket: s})
		})
}

// smallWindow is the room of the sockets of bulk, in bytes, and stalled is how long nothing may
// move there.
const (
	smallWindow = 8 << 10
	stalled     = 20 * time.Second
)

// bulk: 1 MiB each way at the same time, through small windows, comes whole and in order.
func (x *claimRun) bulk(ctx context.Context) error {
	return x.exchangesAlike(ctx, "1048576 bytes and 1048576 bytes", script.Stream{Window: smallWindow}, nil,
		func(ctx context.Context, e *exchangeParts) error {
			up := script.Burst{Count: 64, Size: 16 << 10, Line: script.ClientLine}
			down := up
			down.Line = script.ServerLine
			there := pourer{end: e.client, sends: up, hears: down}
			back := pourer{end: e.server, sends: down, hears: up}
			for last := time.Now(); there.hears.Count+back.hears.Count > 0 && time.Since(last) < stalled; {
				moved := false
				for i, p := range []*pourer{&there, &back} {
					m, err := p.turn(ctx, []side{e.local, e.remote}[i])
					if err != nil {
						return err
					}
					moved = moved || m
				}
				if there.wrong+back.wrong != "" {
					break
				}
				if moved {
					last = time.Now()
				}
			}
			e.seen = append(e.seen, back.heard()+" and "+there.heard())
			return nil
		})
}

// pourer is one end of bulk: what it sends, how far it has sent it, and what it is still to hear.
type pourer struct {
	end          string
	sends, hears script.Burst
	sent         int
	wrong        string // what came in place of what was due, or why no more could be sent
}

// heard says how much the end has heard that was as it must be.
func (p *pourer) heard() string {
	return fmt.Sprintf("%d bytes%s", p.hears.First*p.hears.Size, p.wrong)
}

// turn has the end take what has arrived and send what its socket takes. It reports whether
// anything moved.
func (p *pourer) turn(ctx context.Context, at side) (moved bool, err error) {
	r := at.request()
	var heard, poured *stepResult
	if p.hears.Count > 0 {
		heard = r.add(script.ReceiveBurst{Socket: p.end, Burst: p.hears}, exchangeEnds)
	}
	if p.sent < p.sends.Count*p.sends.Size {
		poured = r.add(script.Pour{Socket: p.end, Burst: p.sends, From: p.sent}, exchangeEnds)
	}
	r.fence()
	if err := r.run(ctx); err != nil {
		return false, err
	}
	if heard != nil {
		t := heard.Tally
		if heard.Err != nil || t.Wrong != "" {
			p.wrong = ", then " + t.Wrong + heard.found()
			return false, nil
		}
		p.hears.First, p.hears.Count = p.hears.First+t.Right, p.hears.Count-t.Right
		moved = t.Right > 0
	}
	if poured != nil {
		if poured.Err != nil {
			p.wrong = ", then " + poured.found()
		}
		moved = moved || poured.Count > p.sent
		p.sent = poured.Count
	}
	return moved, nil
}

// closesAtOnce: both ends of a diverted connection may close it at the same time.
//
//  1. Control: before the rules are there, a client like the cell's does not reach the server, and
//     the divert socket sees nothing.
//  2. One rule diverts the connection, the other hands what the client sends to a divert socket.
//     The client connects through it, and the server reads its line.
//  3. The client closes, and its FIN waits at the divert socket. The server closes: its FIN crosses
//     that. Then the client's FIN is reinjected, and what follows.
//  4. Both ends have come to the end of the stream, and both sockets are in TIME_WAIT: each was in
//     CLOSING before (RFC 9293, 3.6, case 3). An end that is closed after the other has none.
func (x *claimRun) closesAtOnce(ctx context.Context) error {
	packets := x.rule()
	packets.Label, packets.Action, packets.Divert = x.Cell.label("-packet"), pfconf.DivertPacket, x.divertPort()
	x.more = []pfconf.Rule{packets}
	if err := x.openStream(ctx); err != nil {
		return err
	}
	if err := x.loadBehindStream(ctx); err != nil {
		return err
	}
	from, to := x.flowEnds()
	spec := x.clientSpec()
	there := x.local.request()
	ready := []*stepResult{there.open("client", spec), there.connect("client", spec)}
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := x.opened(ready...); err != nil {
		return err
	}
	if _, err := x.relayed(ctx); err != nil {
		return err
	}
	there = x.local.request()
	connected := there.connected("client")
	there.send("client", script.ClientLine, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if connected.Err != nil {
		return failed(NotDelivered, "%s: the connection to %v was not answered (%s)", connected.where, to,
			connected.Err.Text)
	}
	if _, err := x.relayed(ctx); err != nil {
		return err
	}
	e := &exchangeParts{claimRun: x, client: "client", server: "server"}
	receive, closing := script.Receive{Socket: "server"}, script.Shutdown{Socket: "server"}
	if err := e.on(ctx, "server", script.Accept{Socket: "server"}, receive); err != nil {
		return err
	}
	if err := e.on(ctx, "client", script.Shutdown{Socket: "client"}); err != nil {
		return err
	}
	if x.omit[Exchange] {
		if _, err := x.relayed(ctx); err != nil {
			return err
		}
	}
	if err := e.on(ctx, "server", closing); err != nil {
		return err
	}
	if _, err := x.relayed(ctx); err != nil {
		return err
	}
	if err := e.on(ctx, "server", receive, script.CloseConn{Socket: "server"}); err != nil {
		return err
	}
	if err := e.on(ctx, "client", script.Receive{Socket: "client"}, script.CloseConn{Socket: "client"}); err != nil {
		return err
	}
	const wanted = `"Client\n" eof eof`
	if saw := strings.Join(e.seen, " "); saw != wanted {
		return failed(WrongData, "the ends of the diverted connection saw %s, not %s", saw, wanted)
	}
	at := x.remote.request()
	there = x.local.request()
	sockets := []waiting{at.waiting(to, from), there.waiting(from, to)}
	if err := both(ctx, at.run, there.run); err != nil {
		return err
	}
	for _, s := range sockets {
		if err := x.inTimeWait(s, "both ends closed at once"); err != nil {
			return err
		}
	}
	return nil
}
