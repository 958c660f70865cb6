package report

import (
	"fmt"
	"io"
	"sync"
	"time"

	"pfdivert/matrix"
)

// redrawEvery is the shortest time between two drawings of the progress line:
// more are not seen, and at thousands of cells a second would cost time.
const redrawEvery = 50 * time.Millisecond

// eraseLine goes to the line's start and erases it (ECMA-48 EL).
const eraseLine = "\r\x1b[K"

// Progress is the line "12/26, 1 FAIL" on a terminal that shows how far a run is. It is safe for
// concurrent use.
type Progress struct {
	w     io.Writer
	total int
	live  bool

	mu       sync.Mutex
	done     int
	count    map[matrix.Verdict]int
	drawn    time.Time
	timer    *time.Timer // draws what came too soon after the last drawing
	finished bool
}

// NewProgress draws the line of a run with total targets (0 if unknown) on w. It never writes
// anything if live is false (see Style.Live).
func NewProgress(w io.Writer, total int, live bool) *Progress {
	p := &Progress{w: w, total: total, live: live, count: make(map[matrix.Verdict]int)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw()
	return p
}

// Done counts a result.
func (p *Progress) Done(r matrix.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if r.Verdict != matrix.Pass {
		p.count[r.Verdict]++
	}
	if !p.live || p.finished || p.timer != nil {
		return
	}
	wait := redrawEvery - time.Since(p.drawn)
	if wait <= 0 {
		p.draw()
		return
	}
	p.timer = time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.timer = nil
		p.draw()
	})
}

// Write writes text, which must be whole lines, above the progress line.
func (p *Progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live && !p.finished {
		fmt.Fprint(p.w, eraseLine)
		defer p.draw()
	}
	return p.w.Write(text)
}

// Finish erases the line. Nothing is drawn afterwards.
func (p *Progress) Finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if p.live && !p.finished {
		fmt.Fprint(p.w, eraseLine)
	}
	p.finished = true
}

// draw writes the line anew. An error is of no interest: the results will meet
// it too.
func (p *Progress) draw() {
	if !p.live || p.finished {
		return
	}
	p.drawn = time.Now()
	line := fmt.Sprint(p.done)
	if p.total > 0 {
		line = fmt.Sprintf("%d/%d", p.done, p.total)
	}
	for _, v := range matrix.Verdicts {
		if p.count[v] > 0 {
			line += fmt.Sprintf(", %d %s", p.count[v], v)
		}
	}
	fmt.Fprint(p.w, eraseLine+line)
}
