package report

import (
	"math"
	"math/bits"
	"slices"
	"sync"
	"time"

	"pfdivert/matrix"
)

// How many results of a target are kept for each verdict, with their
// transcripts: the first ones, because later ones are mostly the same.
var keptPerVerdict = map[matrix.Verdict]int{
	matrix.Fail: 3, matrix.XPass: 3, matrix.Error: 3,
	matrix.XFail: 1, matrix.Skip: 1,
}

// Stats gathers the results of targets that are run repeatedly. Its memory does not grow with the
// number of results. It is safe for concurrent use.
type Stats struct {
	mu      sync.Mutex
	cells   uint64
	targets []*targetStats
	index   map[string]*targetStats
}

// targetStats are the results of one target.
type targetStats struct {
	name  string
	runs  uint64
	count map[matrix.Verdict]uint64
	kept  []Kept
	// passed is the first result that passed and has something to show; nil for none.
	passed *Kept
	times  histogram
}

// Kept is one of the first failures of a target.
type Kept struct {
	Run uint64 `json:"run"` // its number among the target's results, from 1
	matrix.Result
}

// NewStats returns empty statistics for the targets, which are reported in this order, followed by
// any others.
func NewStats(targets []string) *Stats {
	s := &Stats{index: make(map[string]*targetStats, len(targets))}
	for _, name := range targets {
		s.target(name)
	}
	return s
}

func (s *Stats) target(name string) *targetStats {
	t := s.index[name]
	if t == nil {
		t = &targetStats{name: name, count: make(map[matrix.Verdict]uint64)}
		s.index[name] = t
		s.targets = append(s.targets, t)
	}
	return t
}

// Add counts a result. It reports whether the result is one of those that are kept, so that its
// transcript is worth writing.
func (s *Stats) Add(r matrix.Result) (kept bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.target(r.Name)
	s.cells++
	t.runs++
	t.count[r.Verdict]++
	t.times.add(time.Duration(r.Seconds * float64(time.Second)))
	if r.Verdict == matrix.Pass && t.passed == nil && (r.Evidence != nil || len(r.Transcript) > 0) {
		t.passed = &Kept{Run: t.runs, Result: r}
	}
	if t.count[r.Verdict] > uint64(keptPerVerdict[r.Verdict]) {
		return false
	}
	t.kept = append(t.kept, Kept{Run: t.runs, Result: r})
	return true
}

// Shown returns one result for each target, for reports with room for one: the first with its worst
// verdict, or, if all passed, the first with something to show.
func (s *Stats) Shown() []matrix.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []matrix.Result
	for _, t := range s.targets {
		if k := t.shown(); k != nil {
			all = append(all, k.Result)
		}
	}
	return all
}

// shown is the target's result of Shown, nil for none.
func (t *targetStats) shown() *Kept {
	worst := t.worst()
	for i := range t.kept {
		if t.kept[i].Verdict == worst {
			return &t.kept[i]
		}
	}
	return t.passed
}

// worst is the target's worst verdict, empty when it was not run.
func (t *targetStats) worst() (worst matrix.Verdict) {
	for v := range t.count {
		if worse(v, worst) > 0 {
			worst = v
		}
	}
	return worst
}

// Count returns the number of results for each verdict.
func (s *Stats) Count() map[matrix.Verdict]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.countAll()
}

func (s *Stats) countAll() map[matrix.Verdict]uint64 {
	all := make(map[matrix.Verdict]uint64)
	for _, t := range s.targets {
		for v, n := range t.count {
			all[v] += n
		}
	}
	return all
}

// hostCounts says how many results one of several hosts has, and of which verdicts.
// The caller holds mu.
func (s *Stats) hostCounts(run Run, host string) (n int, verdicts string) {
	count := make(map[matrix.Verdict]uint64)
	for _, t := range s.targets {
		if on, _ := run.splitHost(t.name); on != host {
			continue
		}
		n += int(t.runs)
		for v, c := range t.count {
			count[v] += c
		}
	}
	return n, verdictCounts(count)
}

// ExitStatus returns the exit status of a run with all these verdicts.
func (s *Stats) ExitStatus() int {
	var given []matrix.Verdict
	for v := range s.Count() {
		given = append(given, v)
	}
	slices.Sort(given)
	return matrix.ExitStatus(given...)
}

// The histogram's buckets: below 2^subBits ns one per nanosecond, above that
// 2^subBits in each power of two, up to 2^maxBits ns (18 minutes). A quantile
// is the middle of a bucket and so off by at most half its width, 1/32 of the
// value (3.2 %).
const (
	subBits = 4
	maxBits = 40
	buckets = (maxBits - subBits + 1) << subBits
)

// histogram counts durations in a fixed 4.6 KB, however many there are.
type histogram struct {
	n       uint64
	max     time.Duration
	buckets [buckets]uint64
}

// add counts one duration. Longer ones than 2^40 ns are in the last bucket; max
// is exact for any.
func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.n++
	h.max = max(h.max, d)
	h.buckets[bucketOf(d)]++
}

func bucketOf(d time.Duration) int {
	octave := bits.Len64(uint64(d)) - 1 - subBits
	if octave < 0 {
		return int(d)
	}
	return min((octave+1)<<subBits+int(d>>octave)-1<<subBits, buckets-1)
}

// middle is the inverse of bucketOf.
func middle(bucket int) time.Duration {
	octave := bucket>>subBits - 1
	if octave < 0 {
		return time.Duration(bucket)
	}
	low := time.Duration(bucket&(1<<subBits-1)|1<<subBits) << octave
	return low + 1<<octave/2
}

// quantile is the smallest duration that a share q of all do not exceed, 0 when
// there are none. It is never more than max.
func (h *histogram) quantile(q float64) time.Duration {
	rank := max(1, uint64(math.Ceil(q*float64(h.n))))
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen >= rank && n > 0 {
			return min(middle(i), h.max)
		}
	}
	return 0
}
