package report

import (
	"cmp"
	"fmt"
	"strings"

	"pfdivert/matrix"
)

// sections writes a section for each target. Those of targets that are in order, and of those of
// which the list of causes says all, are hidden until they are asked for.
func (p *page) sections() {
	proofs := map[string]string{}
	for _, t := range append(matrix.Targets(), matrix.Claims()...) {
		proofs[t.Name] = t.Proves()
	}
	p.element("h2", "The targets")
	p.element("p", "Here is what did not pass and has more to show, and the target that was chosen in the matrix.", "class", "muted")
	for i, o := range p.outcomes {
		p.section(i, o, proofs[o.Name])
	}
}

// section writes what is known of a target.
func (p *page) section(i int, o Outcome, proves string) {
	classes := "cell " + class(o.Verdict)
	if fine(o.Verdict) || o.Evidence == nil && o.Explanation == nil && len(o.Transcript) == 0 {
		classes += " quiet"
	}
	p.open("section", "id", id(i), "class", classes, "tabindex", "-1", "aria-labelledby", "h"+id(i))
	p.open("h3", "id", "h"+id(i))
	p.verdict(o.Verdict, string(cmp.Or(o.Verdict, "not played")), "", "", "")
	p.element("span", o.Name, "class", "mono")
	if o.Host != "" {
		p.element("span", "on "+o.Host)
	}
	if o.Verdict != "" {
		p.element("span", duration(o.Seconds), "class", "took")
	}
	p.close("h3")
	if proves != "" {
		p.element("p", "It proves: "+proves+".", "class", "muted")
	}
	if o.Counts != "" {
		p.element("p", fmt.Sprintf("Played %d times: %s. The time is the median.", o.Runs, o.Counts))
	}
	switch {
	case o.Verdict == "":
		p.element("p", "There is no verdict: "+notPlayed+".")
	case o.Reason != "":
		p.open("p")
		p.element("code", o.Reason)
		p.text(" " + o.Detail)
		p.close("p")
	}
	p.explanation(o)
	if o.Evidence != nil {
		p.evidence(i, o)
	}
	p.transcripts(o)
	p.open("p", "class", "back")
	p.element("a", "Back to the matrix", "href", "#m"+id(i))
	p.close("p")
	p.close("section")
}

// explanation writes why the target did not pass and what to do.
func (p *page) explanation(o Outcome) {
	lines := o.explained()
	if lines == nil {
		return
	}
	p.open("dl", "class", "explained")
	for _, line := range lines {
		p.element("dt", strings.ToUpper(line[0][:1])+line[0][1:])
		p.open("dd")
		switch line[0] {
		case "check", "mend":
			p.open("pre")
			p.lines(line[1])
			p.close("pre")
		case "cause":
			p.element("code", line[1])
		default:
			p.text(line[1])
		}
		p.close("dd")
	}
	p.close("dl")
}

// transcripts are what the endpoints logged.
func (p *page) transcripts(o Outcome) {
	if len(o.Transcript) == 0 {
		return
	}
	p.open("details")
	p.element("summary", fmt.Sprintf("Transcripts (%d)", len(o.Transcript)))
	for _, t := range o.Transcript {
		p.element("h4", t.Host+" "+t.Name)
		p.open("pre")
		p.lines(t.Text)
		p.close("pre")
	}
	p.close("details")
}
