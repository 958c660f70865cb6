package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"pfdivert/matrix"
)

// WriteJSON writes one JSON object and a newline:
//
//	{"run":{"kernel":…,"system":…,"version":…,"started":…,"seconds":…},"targets":[
//	{"name":"inet-args-tcp-to","verdict":"PASS","reason":"","detail":"","seconds":0.0012}]}
//
// on one line. The keys' order never changes, the targets are in the order of
// the target list, times are seconds, rounded to a microsecond. Of several hosts:
//
//	{"run":{"version":…,…},"hosts":[{"name":"pfhost","kernel":…,"system":…},…],"targets":[
//	{"name":"inet-args-tcp-to","host":"pfhost","verdict":"PASS",…},…]}
func WriteJSON(w io.Writer, run Run, results []matrix.Result) error {
	results = run.ordered(results)
	if results == nil {
		results = []matrix.Result{} // [] and not null
	}
	for i := range results {
		results[i].Seconds = micro(results[i].Seconds)
	}
	if run.Tested == nil {
		return encode(w, struct {
			Run     Run             `json:"run"`
			Targets []matrix.Result `json:"targets"`
		}{run.forJSON(), results})
	}
	targets := make([]onHost, len(results))
	for i, r := range results {
		host, name := run.splitHost(r.Name)
		targets[i] = onHost{name, host, r}
	}
	return encode(w, struct {
		Run     Run       `json:"run"`
		Hosts   []Machine `json:"hosts"`
		Targets []onHost  `json:"targets"`
	}{run.forJSON(), run.Tested, targets})
}

// onHost is a result in JSON on one of several hosts.
type onHost struct {
	Name string `json:"name"` // in place of the Result's
	Host string `json:"host"`
	matrix.Result
}

// forJSON rounds the run's times to what they are worth.
func (r Run) forJSON() Run {
	r.Started = r.Started.Truncate(time.Millisecond)
	r.Seconds = micro(r.Seconds)
	return r
}

func micro(seconds float64) float64 { return math.Round(seconds*1e6) / 1e6 }

// encode writes v as one line of JSON that is also safe on a terminal:
// encoding/json escapes the seven-bit control characters, this the others that
// are not printable (among them U+009B, which is a terminal's ESC [).
func encode(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if !slices.ContainsFunc(b.Bytes(), func(c byte) bool { return c >= 0x7f }) {
		_, err := b.WriteTo(w)
		return err
	}
	out := make([]byte, 0, b.Len())
	for in := b.Bytes(); len(in) > 0; {
		r, size := utf8.DecodeRune(in)
		switch {
		case r == '\n' || unicode.IsPrint(r):
			out = append(out, in[:size]...)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		in = in[size:]
	}
	_, err := w.Write(out)
	return err
}
