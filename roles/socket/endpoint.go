// Package socket has the sockets of a cell: client, server and packet role, over TCP, UDP, raw IP,
// ICMP echo and divert sockets. An endpoint is driven step by step. Each step either waits until a
// deadline (a role that was started by hand) or takes only what has arrived (the agent, which
// learns by a later packet that nothing more will come).
package socket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"pfdivert/matrix/script"
)

// MaxData is how many bytes of a message are kept, unless the socket is Big.
const MaxData = 2048

// Errors that callers tell apart with errors.Is. System errors stay visible
// in them (errors.As to syscall.Errno).
var (
	// ErrNothing: the thing waited for had not happened by the deadline.
	ErrNothing = errors.New("nothing arrived")
	// ErrUnsupported: this system cannot do it; the text names GOOS.
	ErrUnsupported = errors.New("not supported on this system")
	// ErrNoSocket: there is no TCP socket with these names; see Drop and TCPState.
	ErrNoSocket = errors.New("no such TCP socket")
)

// Now is a deadline that has passed: take what is there and do not wait.
var Now = time.Unix(1, 0)

// Endpoint is an open socket in its role. It is not safe for concurrent use.
type Endpoint interface {
	// Names returns the socket's own name and its peer's, as getsockname and
	// getpeername say; a stream server's are those of the accepted socket once
	// there is one. Invalid where the system has none.
	Names() (local, peer netip.AddrPort)

	// Connect begins to connect a client; a stream may be connected later, see
	// Connected. Clients of the other kinds are connected at once.
	Connect() error
	// Connected waits for a stream client's connection. ErrNothing when the
	// peer had not answered by the deadline.
	Connected(deadline time.Time) error
	// Accept waits for a stream server's connection. Further ones stay queued
	// for Rest to find.
	Accept(deadline time.Time) error

	// Send sends one message: a client to its peer, a server to whom it last
	// received from or has accepted. An echo client sends an echo request with
	// the sequence number seq, which the other kinds ignore; an echo server
	// sends nothing.
	Send(data []byte, seq uint16) error
	// Receive waits for one message. A stream reads up to a newline; at its end
	// the error is io.EOF. A packet endpoint hands out the packet and holds
	// it until Relay or Close.
	Receive(deadline time.Time) (script.Message, error)
	// Relay sends the packet received last on its way, with old in its payload
	// replaced by new (in TCP of the same length) and, where the system leaves that to
	// the program, its checksums fixed. The message tells what was sent.
	Relay(old, new []byte) (script.Message, error)
	// Rest takes all that is still waiting on the socket without waiting for
	// more: messages, connections that no one accepted (as a Message without data).
	// Packets taken by a packet endpoint end here.
	Rest() ([]script.Message, error)
	// Errors takes the ICMP errors that a datagram, raw or echo client received
	// since the last call, each as a line with type, code and sender; none where
	// the system does not keep them (all but Linux).
	Errors() []string
	// CloseConn closes a stream's connection and keeps a server's listener.
	CloseConn() error
	// Close closes everything. A second Close does nothing.
	Close() error
}

// Open opens the socket, sets its options and binds it; a stream server listens. The lines of
// upstream's transcript ("listen sock: 127.0.0.1 5000") are written to log as things happen, each
// in one Write. Close the endpoint when done.
func Open(s script.Socket, log io.Writer) (Endpoint, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	e, deaf, err := open(s, newTranscript(log))
	if err != nil {
		return nil, fmt.Errorf("%v: %w", s, err)
	}
	if deaf {
		return newDeaf(e)
	}
	return e, nil
}

// open opens the socket, and reports whether its ear is to be left out.
func open(s script.Socket, log *transcript) (e Endpoint, deaf bool, err error) {
	leftOut := func(e script.Ends) bool { return e.Role == script.Server && e.Omits(script.Listen) }
	switch s := s.(type) {
	case script.Stream:
		e, err = openStream(s, log)
		return e, leftOut(s.Ends), err
	case script.Datagram:
		e, err = openDatagram(s, log)
		return e, leftOut(s.Ends), err
	case script.RawIP:
		e, err = openRaw(s, log)
		return e, leftOut(s.Ends), err
	case script.Echo:
		e, err = openEcho(s, log)
		return e, leftOut(s.Ends), err
	case script.Divert:
		e, err = openDivert(s, log)
		return e, s.Omits(script.Reader), err
	}
	return nil, false, fmt.Errorf("there is no socket of type %T", s)
}

// maxRewrites bounds what a step of another host may ask for.
const maxRewrites = 8

// longestWait bounds how long a step of another host may have an endpoint wait.
const longestWait = 10 * time.Second

// until is the end of the time that a step may wait.
func until(wait time.Duration) time.Time {
	if wait <= 0 {
		return Now
	}
	return time.Now().Add(min(wait, longestWait))
}

// restOf is an endpoint's Rest, which waits for the first message.
func restOf(e Endpoint, wait time.Duration) ([]script.Message, error) {
	if wait <= 0 {
		return e.Rest()
	}
	first, err := e.Receive(until(wait))
	if errors.Is(err, ErrNothing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	more, err := e.Rest()
	return append([]script.Message{first}, more...), err
}

// Do runs a step on the endpoint.
func Do(e Endpoint, step script.SocketStep) (out script.Outcome, err error) {
	one := func(m script.Message, err error) error {
		if err == nil {
			out.Messages = []script.Message{m}
		}
		return err
	}
	switch st := step.(type) {
	case script.Connect:
		err = e.Connect()
		out.Local, out.Peer = e.Names()
	case script.Connected:
		err = e.Connected(until(st.Wait))
		out.Local, out.Peer = e.Names()
	case script.Accept:
		err = e.Accept(Now)
		out.Local, out.Peer = e.Names()
	case script.Send:
		err = e.Send([]byte(st.Data), st.Seq)
	case script.Receive:
		err = one(e.Receive(Now))
	case script.Relay:
		err = one(e.Relay([]byte(st.Old), []byte(st.New)))
	case script.RelayAll:
		if len(st.Rewrites) > maxRewrites {
			return out, fmt.Errorf("%d rewrites are over the limit of %d", len(st.Rewrites), maxRewrites)
		}
		out.Messages, err = RelayAll(e, st.Rewrites)
	case script.SendBurst:
		err = SendBurst(e, st.Burst)
	case script.ReceiveBurst:
		out.Tally, err = tally(ReceiveBurst(e, st.Burst))
	case script.RelayBurst:
		out.Tally, err = tally(RelayBurst(e, st.Burst, st.Line))
	case script.Pour, script.Shutdown, script.Reset, script.SendUrgent, script.ReceiveUrgent, script.FastOpen:
		s, ok := e.(*stream)
		if !ok {
			return out, fmt.Errorf("%s: the endpoint is no stream", step.Name())
		}
		err = s.do(st, &out)
	case script.KeepBurst:
		out.Tally, err = tally(KeepBurst(e, st.Burst))
	case script.FreeBurst:
		err = FreeBurst(e, st)
	case script.HandOn:
		err = HandOn(e, st.Port)
	case script.Turn:
		err = Turn(e, []byte(st.Old), []byte(st.New), st.In)
	case script.Rest:
		out.Messages, err = restOf(e, st.Wait)
		out.Text = strings.Join(e.Errors(), "; ")
	case script.OriginalDst:
		out.Peer, err = OriginalDst(e)
	case script.CloseConn:
		err = e.CloseConn()
	case script.Close:
		out.Text = strings.Join(e.Errors(), "; ")
		err = e.Close()
	default:
		err = fmt.Errorf("there is no step %T", st)
	}
	return out, err
}

func tally(t script.Tally, err error) (*script.Tally, error) { return &t, err }

// SendBurst sends the messages of a burst.
func SendBurst(e Endpoint, b script.Burst) error {
	if err := b.Validate(); err != nil {
		return err
	}
	if b.Joined {
		d, ok := e.(*datagram)
		if !ok {
			return errors.New("only a datagram socket sends messages in one call")
		}
		return d.sendJoined(b)
	}
	for i := range b.Count {
		if b.Swap && i^1 < b.Count {
			i ^= 1
		}
		if err := e.Send(b.Message(b.First+i), 0); err != nil {
			return fmt.Errorf("message %d: %w", b.First+i, err)
		}
	}
	return nil
}

// ReceiveBurst takes the messages that have arrived, without waiting, and compares them with the
// burst. Of a stream each message is as many bytes as the burst's have.
func ReceiveBurst(e Endpoint, b script.Burst) (script.Tally, error) {
	return takeBurst(e, b, func() error { return nil })
}

// RelayBurst takes the packets that have come to a packet endpoint and reinjects each, with the
// burst's line replaced by line.
func RelayBurst(e Endpoint, b script.Burst, line string) (script.Tally, error) {
	return takeBurst(e, b, func() error {
		_, err := e.Relay([]byte(b.Line), []byte(line))
		return err
	})
}

// KeepBurst takes the packets that have come to a packet endpoint, compares them with the burst and
// keeps them for FreeBurst.
func KeepBurst(e Endpoint, b script.Burst) (script.Tally, error) {
	d, ok := e.(*divert)
	if !ok {
		return script.Tally{}, errPackets
	}
	return takeBurst(e, b, d.keep)
}

// FreeBurst reinjects packets that a packet endpoint keeps.
func FreeBurst(e Endpoint, f script.FreeBurst) error {
	d, ok := e.(*divert)
	if !ok || f.Count < 0 || f.Count > len(d.kept) {
		return errPackets
	}
	for range f.Count {
		if err := d.free(f.NewestFirst, []byte(f.Rewrite.Old), []byte(f.Rewrite.New)); err != nil {
			return err
		}
	}
	return nil
}

// HandOn gives the packet that a packet endpoint holds to another queue, or back to the rules.
func HandOn(e Endpoint, port uint16) error {
	d, ok := e.(*divert)
	if !ok || d.held == nil {
		return errPackets
	}
	q, ok := d.dev.(chooser)
	if !ok {
		return fmt.Errorf("hand a packet on: %w", ErrUnsupported)
	}
	d.held = nil
	return q.handOn(port)
}

var errPackets = errors.New("the endpoint has no such packets")

// takeBurst receives until nothing is left; each is called for each message.
func takeBurst(e Endpoint, b script.Burst, each func() error) (t script.Tally, err error) {
	if err := b.Validate(); err != nil {
		return t, err
	}
	receive := e.Receive
	if s, ok := e.(*stream); ok {
		receive = func(deadline time.Time) (script.Message, error) { return s.receiveBytes(b.Size, deadline) }
	}
	for t.Count < b.Count+drainLimit { // more than that is wrong whatever it is
		m, err := receive(Now)
		if errors.Is(err, ErrNothing) {
			break
		}
		if err != nil {
			return t, err
		}
		t.Count++
		t.Bytes += len(m.Data)
		switch {
		case t.Wrong != "":
		case t.Right < b.Count && bytes.Equal(m.Data, b.At(t.Right)):
			t.Right++
		default:
			t.Wrong = b.Describe(m.Data)
		}
		if err := each(); err != nil {
			return t, err
		}
	}
	return t, nil
}

// OriginalDst asks the kernel whom a server's redirected connection, or the datagrams of its
// socket, were meant for.
func OriginalDst(e Endpoint) (netip.AddrPort, error) {
	switch e := e.(type) {
	case *stream:
		return originalDst(e.conn, family(e.spec.Local.Addr()))
	case *datagram:
		return originalDst(e.fd, family(e.spec.Local.Addr()))
	}
	return netip.AddrPort{}, errors.New("original destination: the socket is redirected nothing")
}

// RelayAll takes the packets that have come to a packet endpoint and reinjects each, rewritten by
// the first of the rewrites that applies. It returns each packet as it came and, in Sent, as it was
// reinjected.
func RelayAll(e Endpoint, rewrites []script.Rewrite) ([]script.Message, error) {
	return rest(func(time.Time) (script.Message, error) {
		m, err := e.Receive(Now)
		if err != nil {
			return m, err
		}
		var r script.Rewrite
		if i := slices.IndexFunc(rewrites, func(r script.Rewrite) bool {
			return bytes.Contains(m.Data,
				[]byte(r.Old))
		}); i >= 0 {
			r = rewrites[i]
		}
		return e.Relay([]byte(r.Old), []byte(r.New))
	})
}

// deaf is an endpoint whose ear was left out (Omit Listen or Reader): nothing arrives.
type deaf struct {
	Endpoint
	local, peer netip.AddrPort
}

// newDeaf closes the socket that e has bound. A stream server's stays: it
// does not listen, which is deaf enough, and its port stays taken.
func newDeaf(e Endpoint) (Endpoint, error) {
	d := deaf{Endpoint: e}
	d.local, d.peer = e.Names()
	if _, ok := e.(*stream); !ok {
		if err := e.Close(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d deaf) Names() (local, peer netip.AddrPort) { return d.local, d.peer }
func (d deaf) Accept(deadline time.Time) error     { return d.silence(deadline) }
func (d deaf) Rest() ([]script.Message, error)     { return nil, nil }
func (d deaf) Receive(deadline time.Time) (script.Message, error) {
	return script.Message{}, d.silence(deadline)
}

// silence waits for nothing.
func (d deaf) silence(deadline time.Time) error {
	time.Sleep(time.Until(deadline))
	return ErrNothing
}
