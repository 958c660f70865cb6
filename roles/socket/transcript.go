package socket

import (
	"encoding/hex"
	"io"
	"net/netip"
	"strconv"
)

// transcript writes an endpoint's log in the form of upstream's programs.
type transcript struct {
	w    io.Writer
	line []byte
}

func newTranscript(w io.Writer) *transcript {
	if w == nil {
		w = io.Discard
	}
	return &transcript{w: w}
}

// maxLogged bounds the bytes of one message that are logged.
const maxLogged = 256

// address writes "what: ADDRESS PORT"; nothing for an address that the system
// did not give.
func (t *transcript) address(what string, a netip.AddrPort) {
	if !a.IsValid() {
		return
	}
	t.line = append(append(t.line[:0], what...), ": "...)
	t.line = append(a.Addr().AppendTo(t.line), ' ')
	t.line = strconv.AppendUint(t.line, uint64(a.Port()), 10)
	t.end()
}

// data writes ">>> Client" or "<<< Client".
func (t *transcript) data(arrow string, b []byte) {
	t.line = append(append(t.line[:0], arrow...), ' ')
	t.line = appendPrintable(t.line, b)
	t.end()
}

// packet writes a whole packet in hex.
func (t *transcript) packet(arrow string, b []byte) {
	t.line = append(append(t.line[:0], arrow...), ' ')
	t.line = hex.AppendEncode(t.line, b[:min(len(b), maxLogged)])
	if len(b) > maxLogged {
		t.line = append(t.line, "..."...)
	}
	t.end()
}

func (t *transcript) text(s string) {
	t.line = append(t.line[:0], s...)
	t.end()
}

// end writes the line. A log that cannot be written is no reason to give up
// the test.
func (t *transcript) end() {
	t.line = append(t.line, '\n')
	_, _ = t.w.Write(t.line)
}

// appendPrintable appends what a peer sent, without its newline and with
// everything but printable ASCII escaped, so that it cannot steer a terminal or
// forge a line.
func appendPrintable(dst, b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	cut := len(b) > maxLogged
	for _, c := range b[:min(len(b), maxLogged)] {
		switch {
		case c == '\\':
			dst = append(dst, `\\`...)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c < ' ' || c > '~':
			dst = append(dst, `\x`...)
			dst = hex.AppendEncode(dst, []byte{c})
		default:
			dst = append(dst, c)
		}
	}
	if cut {
		dst = append(dst, "..."...)
	}
	return dst
}
