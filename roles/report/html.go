package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"

	"pfdivert/matrix"
)

// WriteHTML writes the summaries as one page that refers to nothing outside and has no script: a
// matrix with a column for each host and family, the failures by cause, and a section for each
// target. A link to a section opens it: the section of a target that passed is shown when it is the
// URL's target. Verdicts are told by word, sign and colour.
func WriteHTML(w io.Writer, run Run, summaries []Summary) error {
	p := &page{run: run, summaries: summaries}
	p.write()
	_, err := w.Write(p.b.Bytes())
	return err
}

// page is a page in the making.
type page struct {
	markup
	run       Run
	summaries []Summary
}

func (p *page) write() {
	title := "pfdivert: " + p.totals()
	p.b.WriteString("<!DOCTYPE html>\n")
	p.open("html", "lang", "en")
	p.open("head")
	p.empty("meta", "charset", "utf-8")
	p.empty("meta", "http-equiv", "Content-Security-Policy", "content", contentPolicy())
	p.empty("meta", "name", "viewport", "content", "width=device-width, initial-scale=1")
	p.empty("meta", "name", "color-scheme", "content", "light dark")
	p.element("title", title)
	p.b.WriteString("<style>" + styleSheet + "</style>\n")
	p.close("head")
	p.open("body")
	p.signs()
	p.header()
	p.open("main")
	if len(p.summaries) > 0 {
		p.matrix()
		p.causes()
		p.sections()
	}
	p.close("main")
	p.close("body")
	p.close("html")
}

// totals are those of the text report.
func (p *page) totals() string {
	results := make([]matrix.Result, 0, len(p.summaries))
	for _, o := range p.summaries {
		if o.Verdict != "" {
			results = append(results, o.Result)
		}
	}
	return p.run.totals(results)
}

// signs defines the verdicts' shapes once.
func (p *page) signs() {
	p.open("svg", "class", "signs", "aria-hidden", "true")
	for _, v := range matrix.Verdicts {
		p.open("symbol", "id", "sign-"+class(v), "viewBox", "0 0 16 16")
		p.empty("path", "fill-rule", "evenodd", "d", shapes[v])
		p.close("symbol")
	}
	p.close("svg")
}

// verdict writes a verdict by word, sign and colour, as a link when there is somewhere to
// go.
func (p *page) verdict(v matrix.Verdict, word, id, href, label string) {
	attributes := []string{"class", "v " + class(v)}
	if id != "" {
		attributes = append(attributes, "id", id)
	}
	tag := "span"
	if href != "" {
		tag = "a"
		attributes = append(attributes, "href", href, "aria-label", label)
	}
	p.open(tag, attributes...)
	if _, ok := shapes[v]; ok {
		p.open("svg", "aria-hidden", "true")
		p.empty("use", "href", "#sign-"+class(v))
		p.b.WriteString("</svg>")
	}
	p.text(word)
	p.close(tag)
}

// header says what was tested, when and with which result.
func (p *page) header() {
	p.open("header")
	p.element("h1", "Does this kernel divert as it should?")
	p.element("p", "pfdivert: "+p.totals())
	count := map[matrix.Verdict]int{}
	for _, o := range p.summaries {
		count[o.Verdict]++
	}
	p.open("ul", "class", "counts", "aria-label", "Verdicts")
	for _, v := range append(slices.Clone(matrix.Verdicts), "") {
		if count[v] > 0 {
			p.open("li")
			p.verdict(v, fmt.Sprintf("%d %s", count[v], cmp.Or(v, "not played")), "", "", "")
			p.close("li")
		}
	}
	p.close("ul")
	p.open("dl")
	for _, h := range p.run.Tested {
		p.pair(h.Name, h.kernel())
	}
	if p.run.Tested == nil && p.run.Skipped == "" {
		p.pair("Kernel", Machine{Kernel: p.run.Kernel, System: p.run.System}.kernel())
	}
	if p.run.Local != nil {
		p.pair("LOCAL", p.run.Local.kernel())
	}
	for _, h := range p.run.Hosts {
		if h.Name == "local" {
			p.pair("LOCAL", h.kernel())
		}
	}
	p.pair("Program", "pfdivert "+p.run.Version)
	p.pair("Started", p.run.Started.Format(time.RFC3339))
	if p.run.Interrupted {
		p.pair("Ended", "The run was interrupted: what is not played has no verdict.")
	}
	if p.run.Skipped != "" {
		p.pair("Skipped", p.run.Skipped)
	}
	p.close("dl")
	p.close("header")
}

// pair writes an item of a dl.
func (p *page) pair(term, text string) {
	p.element("dt", term)
	p.element("dd", text)
}

// id is the id of an outcome's section; that of its cell in the matrix begins with m.
func id(i int) string { return fmt.Sprintf("c%d", i+1) }

// matrix writes a table for each group of targets.
func (p *page) matrix() {
	var results []matrix.Result
	type place struct {
		title string
		cell
	}
	index := map[place]int{}
	run := p.run
	run.Targets = nil
	for i, o := range p.summaries {
		name := o.Name
		if o.Host != "" {
			name = OnHost(o.Host, o.Name)
		}
		results = append(results, matrix.Result{Name: name, Verdict: cmp.Or(o.Verdict, missing)})
		family, title, kind := splitName(o.Name)
		index[place{title, cell{column{o.Host, family}, kind}}] = i
	}
	p.element("h2", "The matrix")
	p.element("p", "A verdict is a link to what is known of its target.", "class", "muted")
	p.open("div", "class", "panels")
	defer p.close("div")
	for _, panel := range panels(run, results, nil) {
		p.open("div", "class", "scroll", "role", "region", "aria-label", "Targets "+panel.title, "tabindex", "0")
		p.open("table", "class", "matrix")
		p.element("caption", cmp.Or(panel.title, "targets"))
		p.open("thead")
		p.matrixHead(panel)
		p.close("thead")
		p.open("tbody")
		for _, row := range panel.rows {
			p.open("tr")
			p.element("th", row, "scope", "row")
			for _, c := range panel.columns {
				p.open("td")
				if i, ok := index[place{panel.title, cell{c, row}}]; ok {
					o := p.summaries[i]
					p.verdict(o.Verdict, string(cmp.Or(o.Verdict, missing)), "m"+id(i), "#"+id(i),
						strings.TrimSpace(fmt.Sprintf("%s: %s %s", cmp.Or(o.Verdict, "not played"), o.Name, o.Host)))
				}
				p.close("td")
			}
			p.close("tr")
		}
		p.close("tbody")
		p.close("table")
		p.close("div")
	}
}

// matrixHead writes the columns' headings: the hosts when there are several, and the
// families.
func (p *page) matrixHead(panel *panel) {
	if panel.columns[0].host != "" {
		p.open("tr")
		p.open("td")
		p.close("td")
		for i, c := range panel.columns {
			if i > 0 && panel.columns[i-1].host == c.host {
				continue
			}
			n := 0
			for _, other := range panel.columns {
				if other.host == c.host {
					n++
				}
			}
			p.element("th", c.host, "scope", "colgroup", "colspan", fmt.Sprint(n))
		}
		p.close("tr")
	}
	p.open("tr")
	p.open("td")
	p.close("td")
	for _, c := range panel.columns {
		p.element("th", c.family, "scope", "col")
	}
	p.close("tr")
}

// causes lists what did not pass; what has the same verdict, reason and explanation on a host
// is listed together.
func (p *page) causes() {
	type cause struct {
		host, reason, likely string
		verdict              matrix.Verdict
	}
	var order []cause
	members := map[cause][]int{}
	for i, o := range p.summaries {
		if o.Verdict == matrix.Pass || o.Verdict == "" {
			continue
		}
		c := cause{o.Host, o.Reason, "", o.Verdict}
		if o.Explanation != nil {
			c.likely = o.Explanation.Likely
		}
		if members[c] == nil {
			order = append(order, c)
		}
		members[c] = append(members[c], i)
	}
	if order == nil {
		return
	}
	sort.SliceStable(order, func(i, j int) bool { return worse(order[j].verdict, order[i].verdict) < 0 })
	p.element("h2", "What did not pass")
	p.open("ul", "class", "causes")
	for _, c := range order {
		first := p.summaries[members[c][0]]
		p.open("li")
		p.verdict(c.verdict, string(c.verdict), "", "", "")
		p.text(" ")
		p.element("code", c.reason)
		if c.host != "" {
			p.text(" on " + c.host)
		}
		p.element("p", cmp.Or(c.likely, first.Detail))
		p.open("p", "class", "names mono")
		for _, i := range members[c] {
			p.element("a", p.summaries[i].Name, "href", "#"+id(i))
		}
		p.close("p")
		p.close("li")
	}
	p.close("ul")
}
