package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"pfdivert/matrix"
	"pfdivert/matrix/explain"
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
	type onHost struct {
		Name string `json:"name"` // in place of the Result's
		Host string `json:"host"`
		matrix.Result
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

// Past is a run that was read from its JSON report.
type Past struct {
	Run       Run // with Tested when several hosts were tested
	Summaries []Summary
	// tails are, by the index of Summaries, the times that 95 % of a target's runs did not
	// exceed, in seconds; only for runs that repeat.
	tails []float64
}

// Bounds of what is read: a report of 32 hosts with long details has some megabytes.
const (
	maxReport  = 64 << 20
	maxTargets = 100_000
	maxName    = 256
)

// pastTarget is a target in either form of JSON.
type pastTarget struct {
	Name, Host, Reason, Detail string
	Verdict                    matrix.Verdict
	Seconds                    json.RawMessage // a number, or in the form with runs an object
	Runs                       *uint64
	Verdicts                   map[matrix.Verdict]uint64
	NotPassed                  []Kept `json:"not_passed"`
	Explanation                *explain.Explanation
}

// ReadJSON reads a report that WriteJSON, Stats.WriteJSON or their versions for several hosts
// wrote. Unknown keys are ignored, so that reports of other versions can be read; known keys must
// be present and valid. Its input is bounded.
func ReadJSON(r io.Reader) (*Past, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxReport+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxReport {
		return nil, fmt.Errorf("it has more than %d MB", maxReport>>20)
	}
	var in struct {
		Run     *Run
		Hosts   []Machine
		Targets []pastTarget
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&in); err != nil {
		return nil, fmt.Errorf("it is no JSON report: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the report")
	}
	switch {
	case in.Run == nil || in.Run.Version == "" || in.Targets == nil:
		return nil, errors.New("it is no report of a run: it lacks the run or the targets")
	case len(in.Targets) > maxTargets:
		return nil, fmt.Errorf("it has more than %d targets", maxTargets)
	}
	p := &Past{Run: *in.Run}
	p.Run.Tested = in.Hosts
	hosts := map[string]bool{}
	for _, h := range in.Hosts {
		if h.Name == "" || len(h.Name) > maxName || hosts[h.Name] {
			return nil, fmt.Errorf("host %q has no name of its own", h.Name)
		}
		hosts[h.Name] = true
	}
	if len(hosts) == 0 {
		hosts[""] = true
	}
	seen := map[[2]string]bool{}
	for i, t := range in.Targets {
		o, tail, err := t.summary()
		switch key := [2]string{t.Host, t.Name}; {
		case t.Name == "" || len(t.Name) > maxName:
			err = errors.New("it has no name")
		case !hosts[t.Host]:
			err = fmt.Errorf("its host %q is not among the hosts", t.Host)
		case seen[key]:
			err = errors.New("it is there twice")
		default:
			seen[key] = true
		}
		if err != nil {
			return nil, fmt.Errorf("target %d, %q: %w", i+1, t.Name, err)
		}
		p.Summaries, p.tails = append(p.Summaries, o), append(p.tails, tail)
	}
	return p, nil
}

// outcome reads either form; tail is that of Past.tails.
func (t pastTarget) summary() (o Summary, tail float64, err error) {
	o.Name, o.Host = t.Name, t.Host
	if t.Runs == nil {
		if !slices.Contains(matrix.Verdicts, t.Verdict) {
			return o, 0, fmt.Errorf("%q is no verdict", t.Verdict)
		}
		o.Verdict, o.Reason, o.Detail, o.Explanation = t.Verdict, t.Reason, t.Detail, t.Explanation
		err = json.Unmarshal(t.Seconds, &o.Seconds)
		return o, 0, validTimes(err, o.Seconds)
	}
	var n uint64
	for v, count := range t.Verdicts {
		if !slices.Contains(matrix.Verdicts, v) {
			return o, 0, fmt.Errorf("%q is no verdict", v)
		}
		if count > 0 && worse(v, o.Verdict) > 0 {
			o.Verdict = v
		}
		if n += count; n < count {
			return o, 0, errors.New("its verdicts can't be counted")
		}
	}
	if n != *t.Runs {
		return o, 0, fmt.Errorf("%d runs have %d verdicts", *t.Runs, n)
	}
	for _, k := range t.NotPassed {
		if k.Verdict == o.Verdict {
			o.Reason, o.Detail, o.Explanation, o.Run = k.Reason, k.Detail, k.Explanation, k.Run
			break
		}
	}
	o.Runs, o.Counts = n, verdictsOf(t.Verdicts)
	var times struct{ P50, P95 float64 }
	err = json.Unmarshal(t.Seconds, &times)
	o.Seconds = times.P50
	return o, times.P95, validTimes(err, times.P50, times.P95)
}

func validTimes(err error, seconds ...float64) error {
	for _, s := range seconds {
		if s < 0 || math.IsInf(s, 0) {
			err = cmp.Or(err, fmt.Errorf("%v seconds are no time", s))
		}
	}
	return err
}
