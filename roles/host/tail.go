package host

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"
)

// maxTail bounds what is kept of an agent's standard error, in bytes.
const maxTail = 8 << 10

// lateOutput is how long to wait for the end of standard error after a process
// has ended: a process that it left behind may hold the pipe open.
const lateOutput = 200 * time.Millisecond

// tail keeps the end of a stream.
type tail struct {
	source io.ReadCloser
	over   chan struct{} // closed at the end of the stream
	more   chan struct{} // has a value when there is something new

	mu      sync.Mutex
	kept    []byte
	dropped bool
	marks   [][]byte // see from
}

// readTail begins to read the stream.
func readTail(source io.ReadCloser) *tail {
	t := &tail{source: source, over: make(chan struct{}), more: make(chan struct{}, 1)}
	go func() {
		defer close(t.over)
		defer source.Close()
		b := make([]byte, 4<<10)
		for {
			n, err := source.Read(b)
			t.add(b[:n])
			if err != nil {
				return
			}
		}
	}()
	return t
}

func (t *tail) add(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if n := len(t.kept) - maxTail; n > 0 {
		t.kept = append(t.kept[:0], t.kept[n:]...)
		t.dropped = true
	}
	select {
	case t.more <- struct{}{}:
	default:
	}
}

// from has the text begin behind the last of the marks, which no one else
// writes.
func (t *tail) from(mark string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.marks = append(t.marks, []byte(mark))
}

// finish waits a short time for the end of the stream and stops reading.
func (t *tail) finish() {
	select {
	case <-t.over:
	case <-time.After(lateOutput):
		t.source.Close()
		<-t.over
	}
}

// count tells how often the mark came.
func (t *tail) count(mark string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Count(t.kept, []byte(mark))
}

// String returns what was kept as lines of text. A terminal takes it as text,
// whatever the other host sent: control characters are gone.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept, dropped := t.kept, t.dropped
	for _, mark := range t.marks {
		if i := bytes.LastIndex(kept, mark); i >= 0 {
			kept, dropped = bytes.TrimLeft(kept[i+len(mark):], "\r\n"), false
		}
	}
	s := strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(kept), "?"))
	if dropped {
		return "..." + s
	}
	return s
}
