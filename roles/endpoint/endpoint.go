// Package endpoint has the sockets that play a part in a cell: the client, the
// server and the packet role over TCP, UDP, raw IP, ICMP echo and divert
// sockets. An endpoint is driven step by step, each step either waiting until
// a deadline (a role that was started by hand) or taking only what has
// arrived already (the agent, which knows by a later packet that nothing more
// can come).
package endpoint

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"pfdivert/matrix/script"
	"time"
)

// MaxData bounds what is kept of one message, unless the endpoint is a Big one.
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

// Now is a deadline that has passed: take what is there, do not wait.
var Now = time.Unix(1, 0)

// Endpoint is an open socket with its part. Its methods are called by one
// goroutine at a time.
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

// Open opens the socket, sets its options and binds it; a stream server
// listens. The lines of upstream's transcript ("listen sock: 127.0.0.1 5000")
// are written to log, each with one Write, as things happen.
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

// open opens the socket, and says whether its ear is to be left out.
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
