package report

import (
	"bufio"
	"bytes"
	"cmp"
	"io"

	"pfdivert/matrix"
)

// Write writes the fleet in the format that has a flag.
func (f *Fleet) Write(w io.Writer, flag string) error {
	switch flag {
	case "json":
		return f.WriteJSON(w)
	case "tap":
		return WriteTAP(w, f.run(), f.points())
	case "junit":
		return WriteJUnit(w, f.run(), f.points())
	}
	return f.writeHTML(w)
}

// WriteJSON writes one JSON object and a newline, like WriteJSON of several hosts. Each host also
// has what is known of its run, its files, what doctor found and which of its files could not be
// read; "groups" has the hosts with the same kernel, filter and verdicts, "since" what
// changed since the last time.
func (f *Fleet) WriteJSON(w io.Writer) error {
	b := bufio.NewWriter(w)
	var err error
	put := func(before string, v any) {
		var text bytes.Buffer
		if err == nil {
			err = encode(&text, v)
		}
		b.WriteString(before)
		b.Write(bytes.TrimSuffix(text.Bytes(), []byte("\n")))
	}
	put(`{"run":`, f.run().forJSON())
	hosts := []*Host{} // [] and not null
	put(`,"hosts":`, append(hosts, f.hosts...))
	put(`,"groups":`, f.groups())
	if f.notes != nil {
		put(`,"notes":`, f.notes)
	}
	if f.since != nil {
		put(`,"since":`, f.since)
	}
	b.WriteString(`,"targets":[`)
	before := ""
	for _, h := range f.hosts {
		for i := range h.summaries {
			put(before, h.summaries[i].forJSON())
			before = ","
		}
	}
	b.WriteString("]}\n")
	if err != nil {
		return err
	}
	return b.Flush()
}

// forJSON is a target of a run that was read, in the form in which it was.
func (o *Summary) forJSON() any {
	if o.repeats == nil {
		r := o.Result
		r.Seconds = micro(r.Seconds)
		return onHost{o.Name, o.Host, r}
	}
	t := statsTarget{Name: o.Name, Host: o.Host, Runs: o.Runs, Passes: o.repeats.verdicts[matrix.Pass],
		Verdicts: o.repeats.verdicts, Seconds: o.repeats.times, Kept: o.repeats.kept}
	if t.Kept == nil {
		t.Kept = []Kept{}
	}
	return t
}

// points are the targets of all hosts, and what else is wrong with a host, for reports in which all
// has to be a test.
func (f *Fleet) points() []Summary {
	all := summariesOf(f.hosts)
	add := func(h *Host, r matrix.Result) { all = append(all, Summary{Result: r, Host: h.Name}) }
	for _, h := range f.hosts {
		for _, u := range h.unable() {
			add(h, matrix.Result{Name: u.File, Verdict: matrix.Error, Reason: matrix.SetupFailed, Detail: u.Error})
		}
		if h.Doctor == nil {
			continue
		}
		r := matrix.Result{Name: "doctor", Verdict: matrix.Pass}
		for _, p := range h.Doctor.Problems {
			if p.Severity == severityBad {
				if r.Detail != "" {
					r.Detail += "; "
				}
				r.Verdict, r.Reason = matrix.Fail, cmp.Or(r.Reason, p.Cause)
				r.Detail += p.What + ": " + p.Why
			}
		}
		add(h, r)
	}
	return all
}
