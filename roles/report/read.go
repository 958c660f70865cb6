package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/matrix/explain"
)

// Past is a run that was read from its JSON report.
type Past struct {
	Run       Run // with Tested when several hosts were tested
	Summaries []Summary
}

// Bounds of what is read: a report of 1,000 hosts has some 30 MB.
const (
	maxReport  = 64 << 20
	maxTargets = 500_000
	maxName    = 256
	maxFilter  = 32
	maxSeconds = 1e9 // some 30 years
	maxBlank   = 64 << 10
)

// ReadJSON reads a report that WriteJSON, Stats.WriteJSON, their versions for several hosts or
// Fleet.WriteJSON wrote. Unknown keys are ignored, so that reports of other versions can be read;
// known keys must be present and valid. Its input is bounded.
func ReadJSON(r io.Reader) (*Past, error) {
	in, err := newReader().read(r)
	if err != nil {
		return nil, err
	}
	if in.run == nil {
		return nil, errNoRun
	}
	return in.past(), nil
}

var errNoRun = errors.New("it is no report of a run: it lacks the run or the targets")

// reader reads reports. It keeps each text once, however many targets and files have it.
type reader struct {
	texts        map[string]string
	explanations map[explain.Explanation]*explain.Explanation
}

func newReader() *reader {
	return &reader{map[string]string{}, map[explain.Explanation]*explain.Explanation{}}
}

// content is what a file has: a run, or what doctor found.
type content struct {
	run       *Run // nil for doctor's
	hosts     []*Host
	summaries []Summary
	doctor    *Doctor
}

// past is the run.
func (c *content) past() *Past {
	p := &Past{*c.run, c.summaries}
	for _, h := range c.hosts {
		p.Run.Tested = append(p.Run.Tested, h.Machine)
	}
	return p
}

// read reads a file, target by target: of each it keeps only what reports need.
func (r *reader) read(from io.Reader) (*content, error) {
	limited := &io.LimitedReader{R: &notBlank{from: from}, N: maxReport + 1}
	d := json.NewDecoder(limited)
	c, err := r.decode(d)
	if err == nil {
		if _, e := d.Token(); !errors.Is(e, io.EOF) {
			err = errors.New("there is more behind the report")
			if errors.Is(e, errBlank) {
				err = e
			}
		}
	}
	if limited.N == 0 {
		err = fmt.Errorf("it has more than %d MB", maxReport>>20)
	}
	if err != nil {
		return nil, err
	}
	return c, c.check()
}

// notBlank reads what has no long row of blanks: those before a value are looked at again, by the
// decoder, each time that more is read.
type notBlank struct {
	from io.Reader
	row  int // blanks at the end of what was read
}

var errBlank = fmt.Errorf("it has more than %d kB of blanks in a row", maxBlank>>10)

func (r *notBlank) Read(b []byte) (int, error) {
	const blanks = " \t\r\n"
	n, err := r.from.Read(b)
	read := b[:n]
	left := bytes.TrimLeft(read, blanks)
	if r.row += n - len(left); r.row > maxBlank {
		return 0, errBlank
	}
	if len(left) > 0 {
		if r.row = len(left) - len(bytes.TrimRight(left, blanks)); r.row > maxBlank {
			return 0, errBlank
		}
	}
	return n, err
}

func (r *reader) decode(d *json.Decoder) (*content, error) {
	c := &content{}
	var found doctorFile
	var invalid error
	targets := false
	err := each(d, '{', func(key string) error {
		switch key {
		case "run":
			return d.Decode(&c.run)
		case "hosts":
			c.hosts = nil
			return d.Decode(&c.hosts)
		case "targets":
			c.summaries, targets = nil, true
			return each(d, '[', func(string) error {
				var t pastTarget
				if err := d.Decode(&t); err != nil {
					return err
				}
				invalid = r.keep(c, &t)
				return invalid
			})
		case "problems":
			return d.Decode(&found.Problems)
		case "notes":
			return d.Decode(&found.Notes)
		case "findings":
			return d.Decode(&found.Findings)
		case "unseen":
			return d.Decode(&found.Unseen)
		case "error":
			return d.Decode(&found.Error)
		}
		return d.Decode(&json.RawMessage{})
	})
	switch {
	case invalid != nil:
		return nil, invalid
	case errors.Is(err, errNoRun), errors.Is(err, errBlank):
		return nil, err
	case errors.Is(err, io.EOF):
		return nil, errors.New("it is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("it is no JSON report: it ends in the middle")
	case err != nil:
		return nil, fmt.Errorf("it is no JSON report: %w", err)
	case c.run == nil && !targets && found.any() && found.Error != "":
		return nil, fmt.Errorf("doctor could not look: %s", found.Error)
	case c.run == nil && !targets && !found.any() && found.Error != "":
		return nil, errors.New(found.Error) // why there is no report
	case c.run == nil && !targets && found.any():
		c.doctor = found.doctor()
	case c.run == nil || c.run.Version == "" || !targets:
		return nil, errNoRun
	}
	return c, nil
}

// each decodes an object or an array, whose first token is open: it calls do before each value,
// with its key if it has one.
func each(d *json.Decoder, open json.Delim, do func(key string) error) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	if token == nil {
		return errNoRun // null
	}
	if token != open {
		return fmt.Errorf("%v is not where %v should be", token, open)
	}
	for d.More() {
		key := ""
		if open == '{' {
			token, err := d.Token()
			if err != nil {
				return err
			}
			key = token.(string)
		}
		if err := do(key); err != nil {
			return err
		}
	}
	_, err = d.Token()
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// check checks what the hosts are called, how long they took, and that each target is one of theirs
// and there once.
func (c *content) check() error {
	if err := c.doctor.check(); err != nil {
		return err
	}
	if c.run != nil {
		if err := cmp.Or(validTimes(nil, c.run.Seconds), validFilter(c.run.filter())); err != nil {
			return fmt.Errorf("the run: %w", err)
		}
	}
	hosts := map[string]bool{}
	for _, h := range c.hosts {
		if h == nil || h.Name == "" || len(h.Name) > maxName || strings.Contains(h.Name, "/") || hosts[h.Name] {
			return fmt.Errorf("host %q has no name of its own", h.name())
		}
		hosts[h.Name] = true
		if err := cmp.Or(h.Doctor.check(), validTimes(nil, h.Seconds), validFilter(h.Filter)); err != nil {
			return fmt.Errorf("host %q: %w", h.Name, err)
		}
	}
	if len(hosts) == 0 {
		hosts[""] = true
	}
	seen := make(map[[2]string]bool, len(c.summaries))
	for i, o := range c.summaries {
		key := [2]string{o.Host, o.Name}
		var err error
		switch {
		case !hosts[o.Host]:
			err = fmt.Errorf("its host %q is not among the hosts", o.Host)
		case seen[key]:
			err = errors.New("it is there twice")
		}
		if err != nil {
			return fmt.Errorf("target %d, %q: %w", i+1, o.Name, err)
		}
		seen[key] = true
	}
	return nil
}

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

// repeats are the numbers of a target that was run repeatedly.
type repeats struct {
	verdicts map[matrix.Verdict]uint64
	times    times
	kept     []Kept
}

// keep checks a target and adds it to what was read.
func (r *reader) keep(c *content, t *pastTarget) error {
	if len(c.summaries) == maxTargets {
		return fmt.Errorf("it has more than %d targets", maxTargets)
	}
	o, err := t.summary()
	if t.Name == "" || len(t.Name) > maxName {
		err = errors.New("it has no name")
	}
	if err != nil {
		return fmt.Errorf("target %d, %q: %w", len(c.summaries)+1, t.Name, err)
	}
	for _, text := range []*string{&o.Name, &o.Host, (*string)(&o.Verdict), &o.Reason, &o.Detail} {
		*text = r.once(*text)
	}
	if e := o.Explanation; e != nil {
		if known, ok := r.explanations[*e]; ok {
			o.Explanation = known
		} else {
			r.explanations[*e] = e
		}
	}
	c.summaries = append(c.summaries, o)
	return nil
}

// once returns the first text that is the same.
func (r *reader) once(text string) string {
	if known, ok := r.texts[text]; ok {
		return known
	}
	r.texts[text] = text
	return text
}

// summary reads either form.
func (t *pastTarget) summary() (o Summary, err error) {
	o.Name, o.Host = t.Name, t.Host
	if t.Runs == nil {
		if !slices.Contains(matrix.Verdicts, t.Verdict) {
			return o, fmt.Errorf("%q is no verdict", t.Verdict)
		}
		o.Verdict, o.Reason, o.Detail, o.Explanation = t.Verdict, t.Reason, t.Detail, t.Explanation
		err = json.Unmarshal(t.Seconds, &o.Seconds)
		return o, validTimes(err, o.Seconds)
	}
	var n uint64
	for v, count := range t.Verdicts {
		if !slices.Contains(matrix.Verdicts, v) {
			return o, fmt.Errorf("%q is no verdict", v)
		}
		if count > 0 && worse(v, o.Verdict) > 0 {
			o.Verdict = v
		}
		if n += count; n < count {
			return o, errors.New("its verdicts can't be counted")
		}
	}
	if n != *t.Runs {
		return o, fmt.Errorf("%d runs have %d verdicts", *t.Runs, n)
	}
	for _, k := range t.NotPassed {
		if k.Verdict == o.Verdict {
			o.Reason, o.Detail, o.Explanation, o.Run = k.Reason, k.Detail, k.Explanation, k.Run
			break
		}
	}
	o.Runs, o.Counts = n, verdictsOf(t.Verdicts)
	o.repeats = &repeats{verdicts: t.Verdicts, kept: t.NotPassed}
	in := &o.repeats.times
	err = json.Unmarshal(t.Seconds, in)
	o.Seconds = in.P50
	return o, validTimes(err, in.P50, in.P95, in.P99, in.Max)
}

// tail is the time that 95 % of the target's runs did not exceed, in seconds; 0 for one run.
func (o *Summary) tail() float64 {
	if o.repeats == nil {
		return 0
	}
	return o.repeats.times.P95
}

// validFilter refuses a filter that can't be part of a host's name.
func validFilter(filter string) error {
	if len(filter) > maxFilter || strings.Contains(filter, "/") {
		return fmt.Errorf("%q is no filter", filter)
	}
	return nil
}

func validTimes(err error, seconds ...float64) error {
	for _, s := range seconds {
		if s < 0 || s > maxSeconds {
			err = cmp.Or(err, fmt.Errorf("%v seconds are no time", s))
		}
	}
	return err
}
