package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pfdivert/matrix"
)

// sampleStats has 300 rounds of the 26 targets, with some that did not pass.
func sampleStats() *Stats {
	s := NewStats(args26)
	for round := range 300 {
		for i, r := range passes(args26) {
			r.Seconds *= 1 + float64((round*7+i)%100)/50
			switch {
			case i == 2 && round%50 == 16:
				r.Verdict, r.Reason, r.Detail = matrix.Fail, "nothing-received",
					fmt.Sprintf("In round %d the server received no datagram that the fence had not overtaken.", round)
			case i == 4:
				r.Verdict, r.Reason, r.Detail = matrix.XFail, "known", "As this kernel is known to."
			case i == 20 && round == 299:
				r.Verdict, r.Reason, r.Detail = matrix.Error, "evil\x1b[m", "evil\u009b\ntext"
			}
			s.Add(r)
		}
	}
	return s
}

func TestStatsGolden(t *testing.T) {
	s := sampleStats()
	run := with(run26, func(r *Run) { r.Seconds = 3.9; r.Seed = 4711 })
	interrupted := with(run, func(r *Run) { r.Interrupted = true; r.Seed = 0 })
	var text, plain, empty, js bytes.Buffer
	for _, err := range []error{
		s.WriteText(&text, onTerminal, run),
		s.WriteText(&plain, pipe, interrupted),
		NewStats(args26[:1]).WriteText(&empty, pipe, interrupted),
		s.WriteJSON(&js, run),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "stats-terminal.txt", text.Bytes())
	golden(t, "stats-plain.txt", plain.Bytes())
	golden(t, "stats-empty.txt", empty.Bytes())
	golden(t, "stats.json", js.Bytes())
	for _, out := range []string{text.String(), plain.String(), js.String()} {
		assertClean(t, out)
	}
	var back struct {
		Run struct {
			Kernel string
			Cells  int
		}
		Targets []struct {
			Runs, Passes int
		}
	}
	if err := json.Unmarshal(js.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if back.Run.Cells != 7800 || back.Run.Kernel != run.Kernel || len(back.Targets) != 26 ||
		back.Targets[2].Passes != 294 {
		t.Errorf("read back: %+v", back)
	}
}

// TestStatsKeepsTheFirst: the first failures with their transcripts, and no
// more however many come.
func TestStatsKeepsTheFirst(t *testing.T) {
	s := NewStats(nil)
	for i := range 1000 {
		r := matrix.Result{Name: "inet-args-tcp-to", Verdict: matrix.Verdicts[i%len(matrix.Verdicts)],
			Transcript: []matrix.Transcript{{Text: fmt.Sprint(i)}}}
		want := i < 3*len(matrix.Verdicts) && keptPerVerdict[r.Verdict] > i/len(matrix.Verdicts)
		if kept := s.Add(r); kept != want {
			t.Errorf("result %d, %s: kept %v", i, r.Verdict, kept)
		}
	}
	var got []string
	for _, k := range s.targets[0].kept {
		if want := fmt.Sprint(k.Run - 1); k.Transcript[0].Text != want {
			t.Errorf("run %d has the transcript of %s", k.Run, k.Transcript[0].Text)
		}
		got = append(got, string(k.Verdict))
	}
	want := []string{"XFAIL", "SKIP", "FAIL", "XPASS", "ERROR", "FAIL", "XPASS", "ERROR", "FAIL", "XPASS", "ERROR"}
	if !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	// Of a target there is one folder: what it has is of one run.
	if shown := s.Shown(); len(shown) != 1 || shown[0].Verdict != matrix.Error || shown[0].Transcript[0].Text != "5" {
		t.Errorf("shown are %+v", shown)
	}
}

// TestStatsKeepsAPass: of a target that always passed the first result is kept that has something
// to show, for the page and the folder; it is none of those that did not pass.
func TestStatsKeepsAPass(t *testing.T) {
	s := NewStats([]string{"a", "b", "c"})
	for i := range 3 {
		r := matrix.Result{Name: "a", Verdict: matrix.Pass}
		if i > 0 {
			r.Transcript = []matrix.Transcript{{Host: "local", Name: "client", Text: fmt.Sprint("run ", i+1)}}
			r.Evidence = &matrix.Evidence{}
		}
		s.Add(r)
		r.Name = "b"
		s.Add(r)
		s.Add(matrix.Result{Name: "c", Verdict: matrix.Pass})
	}
	s.Add(matrix.Result{Name: "b", Verdict: matrix.Fail})
	shown := s.Shown()
	if len(shown) != 2 || shown[0].Name != "a" || shown[0].Transcript[0].Text != "run 2" ||
		shown[1].Verdict != matrix.Fail {
		t.Errorf("shown are %+v", shown)
	}
	summaries := s.Summaries(Run{})
	if o := summaries[0]; o.Evidence == nil || len(o.Transcript) != 1 || o.Transcript[0].Text != "run 2" ||
		o.Run != 0 || o.Detail != "" {
		t.Errorf("of what passed: %+v", o)
	}
	if o := summaries[1]; o.Evidence != nil || len(o.Transcript) != 0 {
		t.Errorf("what failed has what a pass showed: %+v", o)
	}
	var b bytes.Buffer
	if err := s.WriteJSON(&b, Run{}); err != nil || !strings.Contains(b.String(), `"name":"a","runs":3,"passes":3`) ||
		strings.Count(b.String(), `"run":`) != 2 {
		t.Errorf("%v, %s", err, &b)
	}
}

func TestStatsExitStatus(t *testing.T) {
	s := NewStats(args26)
	for _, step := range []struct {
		verdict matrix.Verdict
		want    int
	}{{matrix.Pass, 0}, {matrix.Skip, 0}, {matrix.Fail, 1}, {matrix.Pass, 1}, {matrix.Error, 2}, {matrix.Fail, 2}} {
		s.Add(matrix.Result{Name: args26[0], Verdict: step.verdict})
		if got := s.ExitStatus(); got != step.want {
			t.Errorf("after %s: %d, want %d", step.verdict, got, step.want)
		}
	}
}

func TestStatsConcurrent(t *testing.T) {
	s := NewStats(args26)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, r := range passes(args26) {
				s.Add(r)
			}
		})
	}
	wg.Wait()
	if got := s.Count()[matrix.Pass]; got != 8*26 {
		t.Errorf("%d passes, want %d", got, 8*26)
	}
}

// TestHistogramError holds the documented bound against exact quantiles.
func TestHistogramError(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, 1<<maxBits-1), 1, 200).Draw(t, "ns")
		scale := rapid.IntRange(0, maxBits).Draw(t, "scale")
		var h histogram
		for i := range values {
			values[i] >>= scale
			h.add(time.Duration(values[i]))
		}
		slices.Sort(values)
		for _, q := range []float64{0.001, 0.5, 0.95, 0.99, 1} {
			exact := float64(values[max(1, int(math.Ceil(q*float64(len(values)))))-1])
			got := float64(h.quantile(q))
			if math.Abs(got-exact) > exact/32 {
				t.Fatalf("quantile %v is %v, exactly %v", q, got, exact)
			}
		}
		if h.max != time.Duration(values[len(values)-1]) {
			t.Fatalf("max is %v", h.max)
		}
	})
}

func TestHistogramEdges(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 {
		t.Errorf("empty: %v", h.quantile(0.5))
	}
	h.add(-time.Second)
	h.add(math.MaxInt64)
	if h.n != 2 || h.max != math.MaxInt64 || h.quantile(0.5) != 0 || h.buckets[buckets-1] != 1 {
		t.Errorf("n %d max %v p50 %v", h.n, h.max, h.quantile(0.5))
	}
}

func BenchmarkStatsAdd(b *testing.B) {
	s := NewStats(all70)
	results := passes(all70)
	random := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		s.Add(results[random.IntN(len(results))])
	}
}
