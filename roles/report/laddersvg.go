package report

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// The diagram's measures, in the SVG's own units, which are pixels while the page is wide
// enough.
const (
	ladderWidth = 760 // at least
	rungHeight  = 40
	headHeight  = 34
	timeRight   = 78  // right end of the times
	textLeft    = 92  // of the rungs
	maxRungText = 110 // characters
	letterWidth = 7.5 // in a text of 13 units, with room for wide ones
)

// laneAt are the lanes' places.
var laneAt = [...]int{120, 330, 540, 710}

// svg draws the ladder; id makes the ids of its title and description unique. Each rung has a
// line of text and below it an arrow, so that no text is between lanes and is cut off there.
func (l *ladder) svg(m *markup, id, title string) {
	height, width := headHeight+rungHeight*len(l.rungs)+8, ladderWidth
	for _, r := range l.rungs {
		width = max(width, textLeft+int(letterWidth*float64(utf8.RuneCountInString(shorten(r.text, maxRungText)))))
	}
	m.open("svg", "class", "ladder", "role", "img", "aria-labelledby", id+"-t "+id+"-d",
		"viewBox", fmt.Sprintf("0 0 %d %d", width, height), "width", fmt.Sprint(width), "height", fmt.Sprint(height))
	m.element("title", title, "id", id+"-t")
	m.element("desc", l.description(), "id", id+"-d")
	for i, name := range laneNames {
		m.element("text", name, "class", "lane", "x", fmt.Sprint(laneAt[i]), "y", "18", "text-anchor", "middle")
		m.empty("path", "class", "line", "d", fmt.Sprintf("M%d 26V%d", laneAt[i], height-4))
	}
	for i, r := range l.rungs {
		y := headHeight + rungHeight*i
		if r.timed {
			m.element("text", rungTime(r.at), "class", "at", "x", fmt.Sprint(timeRight), "y", fmt.Sprint(y+16),
				"text-anchor", "end")
		}
		r.draw(m, y)
	}
	m.close("svg")
}

// draw writes a rung whose upper end is at y.
func (r rung) draw(m *markup, y int) {
	kind := "event"
	switch {
	case r.lost:
		kind = "lost"
	case r.control:
		kind = "control"
	case r.packet:
		kind = "packet"
	}
	m.open("g", "class", kind)
	m.element("text", shorten(r.text, maxRungText), "class", "what", "x", fmt.Sprint(textLeft), "y", fmt.Sprint(y+16))
	from, to, line := laneAt[r.from], laneAt[r.to], y+26
	switch {
	case from == to && r.lost:
		m.empty("path", "class", "way", "d", cross(from, line))
	case from == to:
		m.empty("path", "class", "mark", "d", fmt.Sprintf("M%d %dl6 6l-6 6l-6 -6z", from, line-6))
	default:
		back := -8 // of the arrow's head
		if to < from {
			back = 8
		}
		m.empty("path", "class", "way", "d", fmt.Sprintf("M%d %dH%d", from, line, to))
		if r.lost {
			m.empty("path", "class", "way", "d", cross(to, line))
		} else {
			m.empty("path", "class", "head", "d", fmt.Sprintf("M%d %dl%d -5v10z", to, line, back))
		}
	}
	m.close("g")
}

// cross is a path of an X.
func cross(x, y int) string {
	return fmt.Sprintf("M%d %dl12 12M%d %dl-12 12", x-6, y-6, x+6, y-6)
}

// description tells the ladder to who can't see it.
func (l *ladder) description() string {
	text := "From LOCAL over the wire to REMOTE's filter and its socket, in the order of time."
	for _, r := range l.rungs {
		text += " "
		if r.timed {
			text += "At " + rungTime(r.at) + ", "
		}
		if r.from == r.to {
			text += laneNames[r.from] + ": "
		} else {
			text += laneNames[r.from] + " to " + laneNames[r.to] + ": "
		}
		text += shorten(r.text, maxRungText) + "."
	}
	return text
}

// rungTime is a time in milliseconds.
func rungTime(d time.Duration) string {
	return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond))
}

// shorten cuts a text to so many characters.
func shorten(text string, n int) string {
	if text = printable(text); utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}
