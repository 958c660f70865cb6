package report

import (
	"math"
	"math/bits"
	"time"
)

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
