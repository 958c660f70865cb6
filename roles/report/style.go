package report

import (
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"pfdivert/matrix"
)

// Style is what the reader of an output can display.
type Style struct {
	// Terminal: a person is looking, so write tables.
	Terminal bool
	// Colour may be used.
	Colour bool
	// Live: a line can be rewritten in place.
	Live bool
	// Width is the number of columns, at least minWidth.
	Width int
	// Claims: list each claim that no manual makes, which one line counts otherwise.
	Claims bool
}

const (
	minWidth     = 40  // narrower than this, lines may be broken by the terminal
	defaultWidth = 80  // of a terminal that does not tell
	maxText      = 100 // longer lines of prose are hard to read
)

// StyleOf returns the style for w. Only a file can be a terminal.
func StyleOf(w io.Writer, getenv func(string) string) Style {
	f, ok := w.(interface{ Fd() uintptr })
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return Style{Width: defaultWidth}
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		width = defaultWidth
	}
	return terminalStyle(width, getenv)
}

// terminalStyle is the style of a terminal with so many columns.
func terminalStyle(width int, getenv func(string) string) Style {
	live := getenv("TERM") != "dumb"
	return Style{
		Terminal: true,
		Colour:   live && getenv("NO_COLOR") == "",
		Live:     live,
		Width:    max(width, minWidth),
	}
}

// The parameters of ECMA-48's SGR (select graphic rendition) for each verdict,
// from the 8 colours that every terminal has.
var verdictColour = map[matrix.Verdict]string{
	matrix.Pass:  "32",   // green
	matrix.XFail: "33",   // yellow
	matrix.Skip:  "36",   // cyan
	matrix.Fail:  "1;31", // bold red
	matrix.XPass: "1;35", // bold magenta
	matrix.Error: "1;31",
}

// verdict returns a verdict padded to width, coloured where colour may be used.
func (s Style) verdict(v matrix.Verdict, width int) string {
	text := string(v)
	pad := strings.Repeat(" ", max(0, width-len(text)))
	if colour, ok := verdictColour[v]; ok && s.Colour {
		text = "\x1b[" + colour + "m" + text + "\x1b[0m"
	}
	return text + pad
}

// bold sets a heading off.
func (s Style) bold(text string) string {
	if !s.Colour {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

// printable makes text that came from elsewhere safe to print: characters that
// are not printable (control characters, also the eight-bit ones, and those
// that change the direction of the text) become Go escapes, bytes that are no
// UTF-8 become \xNN.
func printable(text string) string {
	safe := true
	for _, r := range text {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			safe = false
			break
		}
	}
	if safe {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) {
			quoted := strconv.Quote(text[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(text[:size])
		}
		text = text[size:]
	}
	return b.String()
}

// wrap breaks text at spaces into lines of at most width characters, each
// behind indent. A longer word has a line of its own.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
			b.WriteString(indent)
			column = len(indent)
		case column+1+n > width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	if column > 0 {
		b.WriteByte('\n')
	}
	return b.String()
}
