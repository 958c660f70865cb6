package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pfdivert/matrix"
)

// TestRegressions: what each pair of verdicts means. R regression, m fixed, s SKIP came
// or went, c another verdict, n new, g gone, - the same.
func TestRegressions(t *testing.T) {
	const none = matrix.Verdict("")
	columns := []matrix.Verdict{matrix.Pass, matrix.XPass, matrix.XFail, matrix.Skip, matrix.Fail, matrix.Error, none}
	words := map[byte]ChangeKind{'R': Regression, 'm': Fixed, 's': Skipped, 'c': Changed, 'n': New, 'g': Gone, '-': ""}
	rows := []struct {
		before matrix.Verdict
		after  string // a letter for each of columns
	}{
		//             PASS XPASS XFAIL SKIP FAIL ERROR none
		{matrix.Pass, "-    c     R     R    R    R     R"},
		{matrix.XPass, "c   -     R     R    R    R     R"},
		{matrix.XFail, "m   m     -     s    R    R     g"},
		{matrix.Skip, "m    m     s     -    R    R     g"},
		{matrix.Fail, "m    m     c     s    -    c     g"},
		{matrix.Error, "m   m     c     s    c    -     g"},
		{none, "n           n     n     n    n    n     -"},
	}
	if len(columns) != len(matrix.Verdicts)+1 || len(rows) != len(columns) {
		t.Fatal("not all verdicts are in the table")
	}
	for _, row := range rows {
		for i, letter := range strings.Fields(row.after) {
			if got := kindOf(row.before, columns[i]); got != words[letter[0]] {
				t.Errorf("%q -> %q is %q, want %q", row.before, columns[i], got, words[letter[0]])
			}
		}
	}
	// What fails a run that succeeded is a regression, whatever else it is; only a known
	// failure that passes ends a run with 1 and is none.
	for _, a := range matrix.Verdicts {
		for _, b := range matrix.Verdicts {
			if fine(a) && !fine(b) && b != matrix.XPass && kindOf(a, b) != Regression {
				t.Errorf("%s -> %s makes a run fail and is %q", a, b, kindOf(a, b))
			}
		}
	}
}

// past reads what a report's writer writes.
func past(t *testing.T, write func(*bytes.Buffer) error) *Past {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	p, err := ReadJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestReadJSON: what is read is what was written, of both forms and of one host and several.
func TestReadJSON(t *testing.T) {
	run, results := several(args26[:6])
	statsOf := func(run Run, results []matrix.Result) *Stats {
		s := NewStats(run.Targets)
		for _, r := range results {
			for range 3 {
				s.Add(r)
			}
		}
		return s
	}
	one, mixed := run26, explained()
	for name, c := range map[string]struct {
		run   Run
		write func(*bytes.Buffer) error
		want  []Summary
	}{
		"one host": {one, func(b *bytes.Buffer) error { return WriteJSON(b, one, mixed) }, Summaries(one, mixed)},
		"several": {run, func(b *bytes.Buffer) error { return WriteJSON(b, run, results) },
			Summaries(run, results)},
		"one, stats": {one, func(b *bytes.Buffer) error { return statsOf(one, mixed).WriteJSON(b, one) },
			statsOf(one, mixed).Summaries(one)},
		"several, stats": {run, func(b *bytes.Buffer) error { return statsOf(run, results).WriteJSON(b, run) },
			statsOf(run, results).Summaries(run)},
	} {
		p := past(t, c.write)
		if len(p.Summaries) != len(c.want) || p.Run.Kernel != c.run.Kernel || len(p.Run.Tested) != len(c.run.Tested) ||
			!p.Run.Started.Equal(c.run.forJSON().Started) {
			t.Fatalf("%s: %+v", name, p)
		}
		for i, w := range c.want {
			if g := p.Summaries[i]; g.Name != w.Name || g.Host != w.Host || g.Verdict != w.Verdict ||
				g.Reason != w.Reason ||
				!strings.HasSuffix(w.Detail, g.Detail) || g.Seconds != micro(w.Seconds) ||
				!reflect.DeepEqual(g.Explanation, w.Explanation) || g.Runs != w.Runs || g.Counts != w.Counts {
				t.Errorf("%s: %+v\nwant %+v", name, g, w)
			}
		}
	}
}

const (
	aRun    = `"run":{"version":"v1","started":"2026-03-04T05:06:07.891Z","seconds":1}`
	aTarget = `{"name":"a","verdict":"PASS","reason":"","detail":"","seconds":0.1}`
)

func TestReadJSONRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, "it is empty"},
		{`[]`, "it is no JSON report"},
		{`{` + aRun + `}`, "it lacks the run or the targets"},
		{`{"targets":[` + aTarget + `]}`, "it lacks the run or the targets"},
		{`{` + aRun + `,"targets":null}`, "it lacks the run or the targets"},
		{`{"a":{},"b":{},"changes":[]}`, "it lacks the run or the targets"}, // of compare itself
		{`{` + aRun + `,"targets":[]}{}`, "there is more behind the report"},
		{`{` + aRun + `,"targets":[]}x`, "there is more behind the report"},
		{`{` + aRun + `,"targets":[{}]}`, `target 1, "": it has no name`},
		{`{` + aRun + `,"targets":["a"]}`, "it is no JSON report"},
		{`{` + aRun + `,"targets":[` + aTarget + `,` + aTarget + `]}`, `target 2, "a": it is there twice`},
		{`{` + aRun + `,"targets":[{"name":"a","verdict":"FINE","seconds":1}]}`, `"FINE" is no verdict`},
		{`{` + aRun + `,"targets":[{"name":"a","verdict":"PASS","seconds":-1}]}`, "-1 seconds are no time"},
		{`{` + aRun + `,"targets":[{"name":"a","verdict":"PASS"}]}`, "unexpected end of JSON"},
		{`{` + aRun + `,"targets":[{"name":"a","host":"h","verdict":"PASS","seconds":1}]}`,
			`its host "h" is not among the hosts`},
		{`{` + aRun + `,"hosts":[{"name":"h"}],"targets":[` + aTarget + `]}`, `its host "" is not among the hosts`},
		{`{` + aRun + `,"hosts":[{"name":"h"},{"name":"h"}],"targets":[]}`, `host "h" has no name of its own`},
		{`{` + aRun + `,"targets":[{"name":"a","runs":2,"verdicts":{"PASS":1},"seconds":{}}]}`, "2 runs have 1 verdicts"},
		{`{` + aRun + `,"targets":[{"name":"a","runs":2,"verdicts":{"FINE":2},"seconds":{}}]}`, `"FINE" is no verdict`},
		{`{` + aRun + `,"targets":[{"name":"a","runs":1,"verdicts":{"PASS":1},"seconds":{"p50":-1}}]}`, "no time"},
		{`{` + aRun + `,"targets":[{"name":"a","runs":0,"verdicts":{"PASS":18446744073709551615,"FAIL":1},"seconds":{}}]}`, "can't be counted"},
		{`{` + aRun + `,"targets":[{"name":"` + strings.Repeat("a", 300) + `","verdict":"PASS","seconds":1}]}`,
			"it has no name"},
	} {
		_, err := ReadJSON(strings.NewReader(c.text))
		if err == nil && c.want == "it has no name" {
			t.Errorf("a name of 300 letters is taken")
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
	if _, err := ReadJSON(&endless{of: '1'}); err == nil || !strings.Contains(err.Error(), "more than 64 MB") {
		t.Errorf("a file without end: %v", err)
	}
	// As much of a pipe is read at once as fits into it.
	for _, before := range []string{"", `{"run"`, `{` + aRun + `,"targets":[`, `{` + aRun + `,"targets":[]}`} {
		blanks := &endless{of: ' '}
		_, err := ReadJSON(io.MultiReader(strings.NewReader(before), iotest.HalfReader(blanks)))
		if err == nil || err.Error() != "it has more than 64 kB of blanks in a row" || blanks.n > 1<<20 {
			t.Errorf("%s and blanks without end: %v after %d of them", before, err, blanks.n)
		}
	}
	few := strings.Repeat(" \n", 30<<10)
	if _, err := ReadJSON(strings.NewReader(few + `{` + few + aRun + `,"targets":[]}` + few)); err != nil {
		t.Errorf("blanks that are not too many: %v", err)
	}
}

// endless is a file without end, of one letter.
type endless struct {
	of byte
	n  int // that were read
}

func (e *endless) Read(b []byte) (int, error) {
	e.n += len(b)
	for i := range b {
		b[i] = e.of
	}
	return len(b), nil
}

// compared are A and B of each comparison that has a golden file.
func compared(t *testing.T) map[string][2]*Past {
	t.Helper()
	single := func(run Run, results []matrix.Result) *Past {
		return past(t, func(b *bytes.Buffer) error { return WriteJSON(b, run, results) })
	}
	later := with(run26, func(r *Run) {
		r.Kernel = "Linux 6.18.1"
		r.Version = "v1.3"
		r.Started = r.Started.AddDate(0,
			1, 0)
	})
	// All pairs of verdicts, and what is there in one of them only.
	var before, after []matrix.Result
	for i, a := range matrix.Verdicts {
		for j, b := range matrix.Verdicts {
			r := matrix.Result{Name: fmt.Sprintf("inet-pair-%s-%s", strings.ToLower(string(a)),
				strings.ToLower(string(b)))}
			x, y := r, r
			x.Verdict, y.Verdict = a, b
			if a != matrix.Pass {
				x.Reason, x.Detail = matrix.NoReply, "What A says."
			}
			if b != matrix.Pass {
				y.Reason, y.Detail = matrix.NoReply, "What B says."
			}
			if i == 3 && j == 3 {
				y.Reason = matrix.NotDelivered
			}
			before, after = append(before, x), append(after, y)
		}
	}
	before = append(before, matrix.Result{Name: "inet-gone-pass", Verdict: matrix.Pass},
		matrix.Result{Name: "inet-gone-fail", Verdict: matrix.Fail, Reason: matrix.NoReply, Detail: "It was so."})
	after = append(after, matrix.Result{Name: "inet-new-pass", Verdict: matrix.Pass},
		matrix.Result{Name: "inet-new-fail", Verdict: matrix.Fail, Reason: matrix.NoReply, Detail: "It is so."})
	stats := func(run Run, slower float64) *Past {
		s := NewStats(args26[:3])
		for round := range 20 {
			for i, name := range args26[:3] {
				r := matrix.Result{Name: name, Verdict: matrix.Pass, Seconds: 0.002 + float64(round)*1e-5}
				switch i {
				case 0:
					r.Seconds *= slower
				case 1:
					r.Seconds /= slower
				}
				s.Add(r)
			}
		}
		return past(t, func(b *bytes.Buffer) error { return s.WriteJSON(b, run) })
	}
	severalRun, severalResults := several(args26[:6])
	same := single(run26, passes(args26))
	return map[string][2]*Past{
		"same":   {same, same},
		"causes": {same, single(later, explained())},
		"pairs":  {single(run26, before), single(later, after)},
		"hosts":  {single(run26, passes(args26[:6])), single(severalRun, severalResults)},
		"speed":  {stats(run26, 1), stats(with(later, func(r *Run) { r.Interrupted = true }), 1.5)},
		"hostile": {single(with(run26, func(r *Run) { r.Kernel, r.Version = nasty[14], nasty[14] }),
			passes(args26[:1])), single(run26, hostile)},
	}
}

// TestCompareFewer: what a run was not to run is no regression; what an interrupted run did not
// come to is one.
func TestCompareFewer(t *testing.T) {
	whole := past(t, func(b *bytes.Buffer) error { return WriteJSON(b, run26, passes(args26)) })
	fewer := run26
	fewer.Targets = args26[:2]
	c := Compare(whole, past(t, func(b *bytes.Buffer) error { return WriteJSON(b, fewer, passes(args26[:2])) }))
	var text bytes.Buffer
	if err := c.WriteText(&text, pipe); err != nil {
		t.Fatal(err)
	}
	if c.Regressions() != 0 || !strings.HasSuffix(text.String(), "\n26 targets: 24 not run, 2 the same\n") ||
		strings.Contains(text.String(), args26[2]) {
		t.Errorf("%d regressions\n%s", c.Regressions(), text.String())
	}
	interrupted := run26
	interrupted.Interrupted = true
	c = Compare(whole, past(t, func(b *bytes.Buffer) error { return WriteJSON(b, interrupted, passes(args26[:2])) }))
	if c.Regressions() != 24 {
		t.Errorf("%d regressions", c.Regressions())
	}
}

func TestCompare(t *testing.T) {
	regressions := map[string]int{"same": 0, "pairs": 12, "hosts": 9, "speed": 0, "hostile": 1, "causes": 6}
	for name, runs := range compared(t) {
		c := Compare(runs[0], runs[1])
		if got := c.Regressions(); got != regressions[name] {
			t.Errorf("%s: %d regressions, want %d", name, got, regressions[name])
		}
		for file, write := range map[string]func(*bytes.Buffer) error{
			"compare-" + name + ".txt":          func(b *bytes.Buffer) error { return c.WriteText(b, pipe) },
			"compare-" + name + "-terminal.txt": func(b *bytes.Buffer) error { return c.WriteText(b, onTerminal) },
			"compare-" + name + ".json":         func(b *bytes.Buffer) error { return c.WriteJSON(b) },
		} {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, file, b.Bytes())
			assertClean(t, b.String())
			if strings.HasSuffix(file, ".json") && !json.Valid(b.Bytes()) {
				t.Errorf("%s is no JSON", file)
			}
		}
		// The other way round nothing that regressed is still called worse.
		back := Compare(runs[1], runs[0])
		for _, change := range c.Changes {
			if change.Kind != Regression {
				continue
			}
			i := slices.IndexFunc(back.Changes, func(x Difference) bool {
				return x.Name == change.Name &&
					x.Host == change.Host
			})
			if i < 0 || back.Changes[i].Kind == Regression {
				t.Errorf("%s: %s regressed and the way back is no change or a regression too", name, change.Name)
			}
		}
	}
}

// TestKeysDocumented: docs/reports.md has the keys of the JSON of all runs.
func TestKeysDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/reports.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{"skipped": true} // in no golden file
	var collect func(any)
	collect = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				collect(x)
			}
		case map[string]any:
			for key, x := range v {
				if !slices.Contains(matrix.Verdicts, matrix.Verdict(key)) {
					keys[key] = true
				}
				collect(x)
			}
		}
	}
	for _, name := range []string{"mixed.json", "interrupted.json", "hosts.json", "stats.json", "hosts-stats.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		collect(v)
	}
	for key := range keys {
		if !strings.Contains(string(page), "`"+key+"`") {
			t.Errorf("docs/reports.md does not have the key %s", key)
		}
	}
	if len(keys) < 25 {
		t.Errorf("only %d keys were found: %v", len(keys), keys)
	}
}

// FuzzReadJSON: no input makes reading or comparing panic, and what was read compares with
// itself as the same.
func FuzzReadJSON(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds: ", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{` + aRun + `,"targets":[{"name":"a","runs":1,"verdicts":{"FAIL":1},"seconds":{"p50":1}}]}`))
	f.Add([]byte(doctorBad))
	f.Add([]byte(`{"error":"no host is there"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ReadJSON(bytes.NewReader(text))
		fleet := NewFleet("v1", []string{"a.json"})
		added := fleet.Add("a.json", bytes.NewReader(text), nil)
		if err == nil && added != nil {
			t.Errorf("merge does not read what compare does: %v", added)
		}
		if _, err := ReadJSON(bytes.NewReader(written(t, fleet, "json"))); err != nil {
			t.Errorf("what was merged can't be read: %v", err)
		}
		if err != nil {
			return
		}
		if fleet.Against("a.json", p); fleet.since.Regressions != 0 {
			t.Errorf("it regressed since itself: %+v", fleet.since)
		}
		assertClean(t, string(written(t, fleet, "txt")))
		c := Compare(p, p)
		if len(c.Changes) != 0 || c.Regressions() != 0 {
			t.Errorf("it differs from itself: %+v", c.Changes)
		}
		var b bytes.Buffer
		if err := c.WriteText(&b, pipe); err != nil {
			t.Error(err)
		}
		if err := c.WriteJSON(&b); err != nil {
			t.Error(err)
		}
		assertClean(t, b.String())
	})
}
