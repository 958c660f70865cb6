package socket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"pfdivert/matrix/script"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stream is a TCP client or server. A server's descriptor is its listener; the
// connection is conn. A client's conn is its descriptor.
type stream struct {
	*socket
	conn      int    // -1 while there is none
	connected bool   // of a client: the peer has answered
	failed    error  // of a client: why it could not connect
	waiting   []byte // received and not yet handed out
	ended     bool   // the peer has closed
}

// backlog is how many connections a server keeps for Accept and Rest.
const backlog = 8

func openStream(s script.Stream, log *transcript) (Endpoint, error) {
	k, err := openSocket(s.Ends, log, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	if s.Segment > 0 {
		if err := unix.SetsockoptInt(k.fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, int(s.Segment)); err != nil {
			_ = closeSocket(k.fd)
			return nil, fmt.Errorf("TCP_MAXSEG: %w", err)
		}
	}
	if s.Window > 0 {
		if err := unix.SetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, s.Window); err != nil {
			_ = closeSocket(k.fd)
			return nil, fmt.Errorf("SO_RCVBUF: %w", err)
		}
	}
	e := &stream{socket: k, conn: -1}
	if s.Role == script.Client {
		e.conn = k.fd
		return e, nil
	}
	if !s.Omits(script.Listen) {
		if err := unix.Listen(k.fd, backlog); err != nil {
			_ = closeSocket(k.fd)
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	k.local = k.sockName(k.fd)
	log.address("listen sock", k.local)
	return e, nil
}

// Connect sends the client's SYN. Its own name is known from then on.
func (e *stream) Connect() error {
	if e.spec.Role != script.Client {
		return fmt.Errorf("connect: a %s does not connect", e.spec.Role)
	}
	err := unix.Connect(e.conn, sockaddr(e.spec.Remote))
	e.local = e.sockName(e.conn)
	switch {
	case err == nil, errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EINTR):
		return nil
	}
	e.failed = e.connectError(err)
	return e.failed
}

func (e *stream) connectError(err error) error {
	return fmt.Errorf("connect to %v: %w", e.spec.Remote, err)
}

// Connected waits for the peer's answer.
func (e *stream) Connected(deadline time.Time) error {
	if e.connected || e.failed != nil {
		return e.failed
	}
	if e.spec.Role != script.Client {
		return fmt.Errorf("connected: a %s does not connect", e.spec.Role)
	}
	if err := wait(e.conn, unix.POLLOUT, deadline); err != nil {
		return err
	}
	code, err := unix.GetsockoptInt(e.conn, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return fmt.Errorf("SO_ERROR: %w", err)
	}
	if code != 0 {
		e.failed = e.connectError(syscall.Errno(code))
		return e.failed
	}
	e.local, e.peer = e.sockName(e.conn), e.peerName(e.conn)
	if !e.peer.IsValid() {
		return fmt.Errorf("connect to %v: writable without a peer: %w", e.spec.Remote, unix.ENOTCONN)
	}
	e.connected = true
	e.logConnected()
	return nil
}

// Accept waits for a connection.
func (e *stream) Accept(deadline time.Time) error {
	if e.spec.Role != script.Server {
		return fmt.Errorf("accept: a %s does not accept", e.spec.Role)
	}
	if e.conn >= 0 {
		return errors.New("accept: there is a connection already")
	}
	conn, from, err := e.accept(deadline)
	if err != nil {
		return err
	}
	e.conn, e.waiting, e.ended = conn, nil, false
	e.local, e.peer = e.sockName(conn), e.peerName(conn)
	if !e.peer.IsValid() {
		// It was reset already; accept(2) knows who it was.
		e.peer = from
	}
	e.log.address("accept from", from)
	e.log.address("accept sock", e.local)
	e.log.address("accept peer", e.peer)
	return nil
}

func (e *stream) accept(deadline time.Time) (conn int, from netip.AddrPort, err error) {
	for {
		conn, sa, err := accept(e.fd)
		switch {
		case err == nil:
			return conn, addrPort(sa), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		case errors.Is(err, unix.EAGAIN):
			if err := wait(e.fd, unix.POLLIN, deadline); err != nil {
				return -1, from, err
			}
		default:
			return -1, from, fmt.Errorf("accept: %w", err)
		}
	}
}

// Send writes to the connection. What does not fit into the socket's buffer is
// an error: the lines of the suite always fit.
func (e *stream) Send(data []byte, _ uint16) error {
	for sent := 0; sent < len(data); {
		n, err := unix.SendmsgN(e.conn, data[sent:], nil, nil, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		sent += n
	}
	e.log.data(">>>", data)
	return nil
}

// do runs a step that only streams have.
func (e *stream) do(step script.SocketStep, out *script.Outcome) error {
	switch st := step.(type) {
	case script.Pour:
		var err error
		out.Count, err = e.pour(st.Burst, st.From)
		return err
	case script.Shutdown:
		return unix.Shutdown(e.conn, unix.SHUT_WR)
	case script.Reset:
		if err := unix.SetsockoptLinger(e.conn, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return fmt.Errorf("SO_LINGER: %w", err)
		}
		return e.CloseConn()
	case script.SendUrgent:
		_, err := unix.SendmsgN(e.conn, []byte(st.Data), nil, nil, unix.MSG_OOB)
		return err
	case script.ReceiveUrgent:
		var b [1]byte
		n, _, err := unix.Recvfrom(e.conn, b[:], unix.MSG_OOB)
		if err == nil {
			out.Messages = []script.Message{{Data: b[:n], From: e.peer, To: e.local}}
		}
		return err
	case script.FastOpen:
		err := fastOpen(e.conn, []byte(st.Data), sockaddr(e.spec.Remote))
		e.local = e.sockName(e.conn)
		out.Local = e.local
		return err
	}
	return fmt.Errorf("a stream has no step %T", step)
}

// pour writes a burst's bytes from the one with the number from on, as far as the socket takes
// them, and returns the number of the next one.
func (e *stream) pour(b script.Burst, from int) (int, error) {
	if err := b.Validate(); err != nil || from < 0 {
		return from, errors.Join(err, unix.EINVAL)
	}
	for from < b.Count*b.Size {
		n, err := unix.SendmsgN(e.conn, b.At(from / b.Size)[from%b.Size:], nil, nil, 0)
		switch {
		case err == nil:
			from += n
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return from, nil
		default:
			return from, fmt.Errorf("send: %w", err)
		}
	}
	return from, nil
}

// Receive reads a line, or what there is of one at the end of the stream. A
// longer line than MaxData comes in pieces.
func (e *stream) Receive(deadline time.Time) (script.Message, error) {
	for {
		if line, ok := e.nextLine(); ok {
			e.log.data("<<<", line)
			return script.Message{Data: bytes.Clone(line), From: e.peer, To: e.local}, nil
		}
		if e.ended {
			return script.Message{}, io.EOF
		}
		if err := e.read(deadline); err != nil {
			return script.Message{}, err
		}
	}
}

// receiveBytes reads so many bytes, or what there is of them at the end of the stream. Fewer stay
// for the next call.
func (e *stream) receiveBytes(n int, deadline time.Time) (script.Message, error) {
	for len(e.waiting) < n && !e.ended {
		if err := e.read(deadline); err != nil {
			return script.Message{}, err
		}
	}
	if len(e.waiting) == 0 {
		return script.Message{}, io.EOF
	}
	data := e.waiting[:min(n, len(e.waiting))]
	e.waiting = e.waiting[len(data):]
	return script.Message{Data: data, From: e.peer, To: e.local}, nil
}

func (e *stream) nextLine() (line []byte, ok bool) {
	n := bytes.IndexByte(e.waiting, '\n') + 1
	if n == 0 && (e.ended || len(e.waiting) >= MaxData) {
		n = len(e.waiting)
	}
	n = min(n, MaxData)
	line, e.waiting = e.waiting[:n], e.waiting[n:]
	return line, n > 0
}

func (e *stream) read(deadline time.Time) error {
	if e.buf == nil {
		e.buf = make([]byte, MaxData)
	}
	for {
		n, err := unix.Read(e.conn, e.buf)
		switch {
		case err == nil:
			e.ended = n == 0
			e.waiting = append(e.waiting, e.buf[:n]...)
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if err := wait(e.conn, unix.POLLIN, deadline); err != nil {
				return err
			}
		default:
			return fmt.Errorf("receive: %w", err)
		}
	}
}

// Rest takes the lines that the connection still has and the connections that
// were not accepted.
func (e *stream) Rest() ([]script.Message, error) {
	var all []script.Message
	var err error
	if e.conn >= 0 && (e.spec.Role == script.Server || e.connected) {
		all, err = rest(e.Receive)
		if err != nil && !errors.Is(err, io.EOF) {
			return all, err
		}
	}
	if e.spec.Role != script.Server || e.fd < 0 {
		return all, nil
	}
	for len(all) < drainLimit {
		conn, from, err := e.accept(Now)
		if errors.Is(err, ErrNothing) {
			break
		}
		if err != nil {
			return all, err
		}
		all = append(all, script.Message{From: from, To: e.sockName(conn)})
		e.log.address("accept from", from)
		_ = closeSocket(conn)
	}
	return all, nil
}

// CloseConn closes the connection.
func (e *stream) CloseConn() error {
	conn := e.conn
	e.conn = -1
	if conn < 0 {
		return nil
	}
	if conn == e.fd {
		return e.closeFD()
	}
	if err := closeSocket(conn); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// Close closes the connection and the listener.
func (e *stream) Close() error { return errors.Join(e.CloseConn(), e.socket.Close()) }
