package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// MaxFrame is the longest frame, in bytes, that either end accepts. The longest honest ones carry
// the traces of a cell's endpoints.
const MaxFrame = 8 << 20

// A frame is its length in four bytes, most significant first, and then that
// many bytes: a byte that says how the rest is packed, and the rest. Most of what is sent
// is CBOR (RFC 8949); what each cell sends many times is packed by hand (packed.go).
const frameHead = 4

// How a frame is packed.
const (
	inCBOR = 'c'
	byHand = 'p'
)

// decoder bounds what a frame can hold beside its length.
var decoder = func() cbor.DecMode {
	mode, err := cbor.DecOptions{MaxArrayElements: 1 << 16, MaxMapPairs: 1 << 10, MaxNestedLevels: 16}.DecMode()
	if err != nil {
		panic(err) // the options are constants
	}
	return mode
}()

// encoder keeps the nanoseconds of times, which captured packets have.
var encoder = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// appendFrame appends v, a *Request, an *Answer or a Hello, as a frame to buf.
func appendFrame(buf []byte, v any) ([]byte, error) {
	start := len(buf)
	p := packer{out: append(buf, 0, 0, 0, 0, byHand)}
	switch v := v.(type) {
	case *Request:
		if v.often() {
			p.request(v)
			return closeFrame(p.out, start, p.err)
		}
	case *Answer:
		if v.often() {
			p.answer(v)
			return closeFrame(p.out, start, p.err)
		}
	}
	body, err := encoder.Marshal(v)
	p.out[start+frameHead] = inCBOR
	return closeFrame(append(p.out, body...), start, err)
}

// closeFrame writes the length of the frame that begins at start.
func closeFrame(buf []byte, start int, err error) ([]byte, error) {
	n := len(buf) - start - frameHead
	switch {
	case err != nil:
		return buf[:start], fmt.Errorf("frame: %w", err)
	case n > MaxFrame:
		return buf[:start], fmt.Errorf("frame: %d bytes are over the limit of %d", n, MaxFrame)
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
	if err := unpack(body, v); err != nil {
		return fmt.Errorf("frame: %w", err)
	}
	return nil
}

// unpack reads a frame's body into v.
func unpack(body []byte, v any) error {
	if len(body) == 0 {
		return errors.New("it is empty")
	}
	how, body := body[0], body[1:]
	if how == inCBOR {
		return decoder.Unmarshal(body, v)
	}
	p := packer{unpack: true}
	switch v := v.(type) {
	case *Request:
		if how == byHand {
			p.in = string(body)
			p.request(v)
			return p.end()
		}
	case *Answer:
		if how == byHand {
			p.in = string(body)
			p.answer(v)
			return p.end()
		}
	}
	return fmt.Errorf("it is packed in an unknown way (%#x)", how)
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

// send queues a frame. An error is that of an earlier write.
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
