package agent

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

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
