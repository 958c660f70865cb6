package agent

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// MaxFrame is the longest frame, in bytes, that either side accepts. The
// largest honest ones carry the traces of a cell's endpoints.
const MaxFrame = 8 << 20

// A frame is its length in four bytes, most significant first, and then that
// many bytes of CBOR (RFC 8949). Packing JSON and unpacking it took a third of the
// processor time of a long run; CBOR takes less than half of that.
const frameHead = 4

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

// appendFrame appends v as a frame to buf.
func appendFrame(buf []byte, v any) ([]byte, error) {
	body, err := encoder.Marshal(v)
	if err != nil {
		return buf, fmt.Errorf("frame: %w", err)
	}
	if len(body) > MaxFrame {
		return buf, fmt.Errorf("frame: %d bytes are over the limit of %d", len(body), MaxFrame)
	}
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(body)))
	return append(buf, body...), nil
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
	if err := decoder.Unmarshal(body, v); err != nil {
		return fmt.Errorf("frame: %w", err)
	}
	return nil
}
