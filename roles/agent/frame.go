package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"pfdivert/roles/wire"
)

// MaxFrame is the longest frame, in bytes, that either end accepts. The longest honest ones carry
// the traces of a cell's endpoints.
const MaxFrame = 8 << 20

// A frame is its length in four bytes, most significant first, and then that
// many bytes: a value as package wire packs it.
const frameHead = 4

// appendFrame appends v, a *Request, a *Response or a Hello, as a frame to buf.
func appendFrame(buf []byte, v any) ([]byte, error) {
	start := len(buf)
	out, err := wire.Append(append(buf, 0, 0, 0, 0), v)
	return closeFrame(out, start, err)
}

// frameError says why a value makes no frame. The connection is as it was.
type frameError struct{ error }

func (e frameError) Unwrap() error { return e.error }

// closeFrame writes the length of the frame that begins at start. An error is a frameError.
func closeFrame(buf []byte, start int, err error) ([]byte, error) {
	n := len(buf) - start - frameHead
	switch {
	case err != nil:
		return buf[:start], frameError{fmt.Errorf("frame: %w", err)}
	case n > MaxFrame:
		return buf[:start], frameError{fmt.Errorf("frame: %d bytes are over the limit of %d", n, MaxFrame)}
	}
	binary.BigEndian.PutUint32(buf[start:], uint32(n))
	return buf, nil
}

// readFrame reads one frame into v, through buf, which is kept for the next
// frame and never larger than MaxFrame. io.EOF means the end between two
// frames; an end within one is io.ErrUnexpectedEOF.
func readFrame(r io.Reader, buf *[]byte, v any) error {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrame {
		return fmt.Errorf("frame: length %d is over the limit of %d", n, MaxFrame)
	}
	if cap(*buf) < int(n) {
		*buf = make([]byte, n)
	}
	body := (*buf)[:n]
	if _, err := io.ReadFull(r, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := wire.Unpack(body, v); err != nil {
		return fmt.Errorf("frame: %w", err)
	}
	return nil
}

// writer sends frames: those of concurrent senders leave in as few writes as possible.
type writer struct {
	w    io.Writer
	mu   sync.Mutex
	buf  []byte
	err  error
	more chan struct{}
	done chan struct{}
}

func newWriter(w io.Writer) *writer {
	wr := &writer{w: w, more: make(chan struct{}, 1), done: make(chan struct{})}
	go wr.loop()
	return wr
}

// send queues a frame. An error is a frameError, or that of an earlier write.
func (w *writer) send(v any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	buf, err := appendFrame(w.buf, v)
	if err != nil {
		return err
	}
	w.buf = buf
	select {
	case w.more <- struct{}{}:
	default:
	}
	return nil
}

// errStopped is what those get who send on a connection that was closed.
var errStopped = errors.New("agent connection: closed")

// loop writes what is queued. What is queued while it writes goes with the next
// write.
func (w *writer) loop() {
	defer close(w.done)
	var spare []byte
	for range w.more {
		w.mu.Lock()
		out := w.buf
		w.buf = spare[:0]
		w.mu.Unlock()
		if _, err := w.w.Write(out); err != nil {
			w.mu.Lock()
			w.err = fmt.Errorf("agent connection: %w", err)
			w.mu.Unlock()
		}
		spare = out
	}
}

// stop writes what is queued and ends the loop; what is sent after it fails.
// A reader that has stopped reading holds it up for a second and no longer.
func (w *writer) stop() {
	w.mu.Lock()
	if w.err == nil {
		w.err = errStopped
	}
	close(w.more)
	w.mu.Unlock()
	select {
	case <-w.done:
	case <-time.After(time.Second):
	}
}
