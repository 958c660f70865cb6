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

// Progress is the line on a terminal that shows how far a run is: "reaching root@host ..." and then
// "12/26, 1 FAIL". It is safe for concurrent use.
type Progress struct {
	w    io.Writer
	live bool

	mu       sync.Mutex
	begun    bool   // there is something to draw
	doing    string // what is done before the first target
	total    int
	done     int
	count    map[matrix.Verdict]int
	drawn    time.Time
	timer    *time.Timer // draws what came too soon after the last drawing
	finished bool
}

// NewProgress returns the progress of a run, whose line is drawn on w. It is never drawn if live is
// false (see Style.Live).
func NewProgress(w io.Writer, live bool) *Progress {
	return &Progress{w: w, live: live, count: make(map[matrix.Verdict]int)}
}

// Doing draws what is done before the first target. It is drawn once: ssh, which may ask for a
// password, asks behind it.
func (p *Progress) Doing(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun, p.doing = true, what+" ... "
	p.draw()
}

// Start begins to count the results of total targets, 0 if their number is not known.
func (p *Progress) Start(total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun, p.doing, p.total = true, "", total
	p.draw()
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
	if p.live && p.begun && !p.finished {
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
	if p.live && p.begun && !p.finished {
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
	line := p.doing
	switch {
	case line != "":
	case p.total > 0:
		line = fmt.Sprintf("%d/%d", p.done, p.total)
	default:
		line = fmt.Sprint(p.done)
	}
	for _, v := range matrix.Verdicts {
		if p.count[v] > 0 {
			line += fmt.Sprintf(", %d %s", p.count[v], v)
		}
	}
	fmt.Fprint(p.w, eraseLine+line)
}
