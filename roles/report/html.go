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

// WriteHTML writes the summaries as one page that refers to nothing outside and has no script:
// the failures by cause, each with the section of its first target, a matrix with a column for
// each host and family, what is SKIP or XFAIL, folded, and a section for each other target. A
// link to a section opens it: the section of a target that passed is shown when it is the URL's
// target. Verdicts are told by word, sign and colour.
func WriteHTML(w io.Writer, run Run, summaries []Summary) error {
	p := newPage(run, summaries)
	p.write()
	_, err := w.Write(p.b.Bytes())
	return err
}

func newPage(run Run, summaries []Summary) *page {
	p := &page{run: run, summaries: summaries, proofs: map[string]string{}, written: map[int]bool{}}
	for _, t := range append(matrix.Targets(), matrix.Claims()...) {
		p.proofs[t.Name] = t.Proves()
	}
	return p
}

// page is a page in the making.
type page struct {
	markup
	run       Run
	summaries []Summary
	proofs    map[string]string // what each target proves
	written   map[int]bool      // targets that have their section
	fleet     *Fleet            // nil unless files were merged
	cardOf    map[*Host]string  // ids
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
	var causes [][]int
	if !p.grouped() {
		causes = p.causes()
	}
	p.header(causes)
	p.open("main")
	if p.grouped() {
		p.groups()
	}
	if p.fleet != nil {
		if p.fleet.since != nil {
			p.changes(p.fleet.since)
		}
		p.troubles()
	}
	if len(p.summaries) > 0 && !p.grouped() {
		p.failures(causes)
		p.matrix()
		for _, v := range matrix.Verdicts {
			p.folded(v, causes)
		}
		p.sections()
	}
	if p.fleet != nil {
		p.cards()
	}
	p.close("main")
	p.close("body")
	p.close("html")
}

// count is how many targets have each verdict.
func (p *page) count() map[matrix.Verdict]int {
	if p.fleet != nil {
		return p.fleet.count()
	}
	count := map[matrix.Verdict]int{}
	for i := range p.summaries {
		count[p.summaries[i].Verdict]++
	}
	return count
}

// totals are those of the text report.
func (p *page) totals() string {
	count := p.count()
	delete(count, "")
	return p.run.totalsOf(count)
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

// header says what was tested, when and with which result. A badge leads to the first failure of
// its verdict, to what is folded, or to the matrix.
func (p *page) header(causes [][]int) {
	p.open("header")
	title := "Does this kernel divert as it should?"
	if len(p.run.Tested) > 1 && !p.run.filters() {
		title = "Do these kernels divert as they should?"
	}
	p.element("h1", title)
	p.element("p", "pfdivert: "+p.totals())
	count := p.count()
	p.open("ul", "class", "counts", "aria-label", "Verdicts")
	for _, v := range append(slices.Clone(matrix.Verdicts), "") {
		if count[v] > 0 {
			href := "#matrix"
			if p.grouped() {
				href = "#groups"
			}
			switch i := slices.IndexFunc(causes, func(c []int) bool { return p.summaries[c[0]].Verdict == v }); {
			case i < 0:
			case fine(v):
				href = "#" + class(v)
			default:
				href = "#" + id(causes[i][0])
			}
			text := fmt.Sprintf("%d %s", count[v], cmp.Or(v, "not run"))
			p.open("li")
			p.verdict(v, text, "", href, text)
			p.close("li")
		}
	}
	if p.run.lacking > 0 {
		p.open("li")
		p.verdict(matrix.Error, p.run.lack(), "", "#beside", p.run.lack())
		p.close("li")
	}
	p.close("ul")
	p.open("dl")
	if !p.grouped() {
		for _, h := range p.run.Tested {
			p.pair(h.Name, h.kernel())
		}
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
	if !p.run.Started.IsZero() {
		p.pair("Started", p.run.Started.Format(time.RFC3339)+", for "+duration(p.run.Seconds))
	}
	if p.run.Interrupted {
		p.pair("Ended", "The run was interrupted: what was not run has no verdict.")
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
	p.element("h2", "The matrix", "id", "matrix")
	p.element("p", "A verdict is a link to what is known of its target.", "class", "muted")
	if run.Tested != nil {
		p.element("p", "A table that is wider than the window scrolls sideways.", "class", "muted narrow")
	}
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
						strings.TrimSpace(fmt.Sprintf("%s: %s %s", cmp.Or(o.Verdict, "not run"), o.Name, o.Host)))
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
			p.open("th", "scope", "colgroup", "colspan", fmt.Sprint(n))
			p.element("span", c.host, "class", "host") // stays while its columns are in sight
			p.close("th")
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

// causes returns what did not pass, the worst first: what has the same verdict, reason and
// explanation on a host is together.
func (p *page) causes() [][]int {
	type cause struct {
		host, reason, likely string
		verdict              matrix.Verdict
	}
	var all [][]int
	index := map[cause]int{}
	for i, o := range p.summaries {
		if o.Verdict == matrix.Pass || o.Verdict == "" {
			continue
		}
		c := cause{o.Host, o.Reason, "", o.Verdict}
		if o.Explanation != nil {
			c.likely = o.Explanation.Likely
		}
		at, ok := index[c]
		if !ok {
			at = len(all)
			index[c], all = at, append(all, nil)
		}
		all[at] = append(all[at], i)
	}
	sort.SliceStable(all, func(i, j int) bool {
		return worse(p.summaries[all[j][0]].Verdict, p.summaries[all[i][0]].Verdict) < 0
	})
	return all
}

// failures writes for each cause of failures the section of its first target, with links to the
// others.
func (p *page) failures(causes [][]int) {
	causes = slices.DeleteFunc(slices.Clone(causes), func(c []int) bool { return fine(p.summaries[c[0]].Verdict) })
	if len(causes) == 0 {
		return
	}
	p.element("h2", "What failed")
	for _, c := range causes {
		p.section(c[0], "", c[1:])
	}
}

// folded writes what has a verdict that a run succeeds with, in a details element: a summary of
// each cause, with links to its targets.
func (p *page) folded(v matrix.Verdict, causes [][]int) {
	causes = slices.DeleteFunc(slices.Clone(causes), func(c []int) bool { return p.summaries[c[0]].Verdict != v })
	if len(causes) == 0 || !fine(v) {
		return
	}
	n := 0
	for _, c := range causes {
		n += len(c)
	}
	p.open("details")
	p.open("summary")
	p.verdict(v, fmt.Sprintf("%d %s", n, v), "", "", "")
	p.close("summary")
	p.open("ul", "class", "causes", "id", class(v))
	for _, c := range causes {
		first := p.summaries[c[0]]
		p.open("li")
		p.element("code", first.Reason)
		if first.Host != "" {
			p.text(" on " + first.Host)
		}
		text := first.Detail
		if slices.ContainsFunc(c, func(i int) bool { return p.summaries[i].Detail != text }) {
			text = "For example: " + text
		}
		if first.Explanation != nil {
			text = cmp.Or(first.Explanation.Likely, text)
		}
		p.element("p", text)
		p.names(c)
		p.close("li")
	}
	p.close("ul")
	p.close("details")
}

// names writes links to the sections of targets.
func (p *page) names(targets []int) {
	p.open("p", "class", "names mono")
	for _, i := range targets {
		p.element("a", p.summaries[i].Name, "href", "#"+id(i))
	}
	p.close("p")
}
