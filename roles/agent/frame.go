package agent

import (
	"encoding/binary"
	"fmt"
	"io"

	"pfdivert/roles/wire"
)

// MaxFrame is the longest frame, in bytes, that either side accepts. The
// largest honest ones carry the traces of a cell's endpoints.
const MaxFrame = 8 << 20

// A frame is its length in four bytes, most significant first, and then that
// many bytes: a value as package wire packs it.
const frameHead = 4

// appendFrame appends v, a *Request, an *Answer or a Hello, as a frame to buf.
func appendFrame(buf []byte, v any) ([]byte, error) {
	start := len(buf)
	out, err := wire.Append(append(buf, 0, 0, 0, 0), v)
	return closeFrame(out, start, err)
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
	if err := wire.Unpack(body, v); err != nil {
		return fmt.Errorf("frame: %w", err)
	}
	return nil
}
