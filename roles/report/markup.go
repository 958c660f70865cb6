package report

import (
	"bytes"
	"strings"
)

// markup builds XML and HTML. Names of tags and attributes are this program's own
// words; every text and every attribute's value goes through escape, so that
// nothing that came from elsewhere is ever markup.
type markup struct{ b bytes.Buffer }

// open writes a start tag; attributes are pairs of a name and a value.
func (m *markup) open(tag string, attributes ...string) { m.tag(tag, ">", attributes) }

// empty writes a tag of an element without content, as XML has it.
func (m *markup) empty(tag string, attributes ...string) { m.tag(tag, "/>", attributes) }

func (m *markup) tag(tag, end string, attributes []string) {
	m.b.WriteString("<" + tag)
	for i := 0; i < len(attributes); i += 2 {
		m.b.WriteString(" " + attributes[i] + `="` + escape(attributes[i+1]) + `"`)
	}
	m.b.WriteString(end)
}

// close writes an end tag and a newline.
func (m *markup) close(tag string) { m.b.WriteString("</" + tag + ">\n") }

// text writes text of one line.
func (m *markup) text(text string) { m.b.WriteString(escape(text)) }

// lines writes text of several lines.
func (m *markup) lines(text string) {
	for line := range strings.Lines(text) {
		line, ended := strings.CutSuffix(line, "\n")
		m.text(line)
		if ended {
			m.b.WriteByte('\n')
		}
	}
}

// element writes an element that has nothing but a text.
func (m *markup) element(tag, text string, attributes ...string) {
	m.open(tag, attributes...)
	m.text(text)
	m.close(tag)
}

// escape makes a text safe between tags and in quoted attributes, of XML and of HTML.
// What is not printable is escaped as elsewhere in reports; so there is no
// character left that XML 1.0 lacks, and none that changes the direction of text.
func escape(text string) string { return escaper.Replace(printable(text)) }

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;")
