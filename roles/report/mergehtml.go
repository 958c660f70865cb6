package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// writeHTML writes the fleet as a page: of up to a dozen hosts as that of a run of several hosts,
// of more with their groups. Each host has a card, which a link to it opens.
func (f *Fleet) writeHTML(w io.Writer) error {
	run := f.run()
	run.Interrupted = false // the cards say which were
	var all []Summary
	if len(f.hosts) <= maxColumns {
		all = summariesOf(f.hosts)
	}
	p := newPage(run, all)
	p.fleet = f
	p.write()
	_, err := w.Write(p.b.Bytes())
	return err
}

// grouped reports whether the page has groups of hosts in place of a column for each.
func (p *page) grouped() bool { return p.fleet != nil && len(p.fleet.hosts) > maxColumns }

// groups writes what differs between hosts with the same kernel, and which groups there are.
func (p *page) groups() {
	groups := p.fleet.groups()
	p.element("h2", "Groups", "id", "groups")
	p.element("p", headline(p.fleet.hosts, groups)+".")
	var most *group
	for i, g := range groups {
		if !g.Differs {
			most = g
			continue
		}
		p.open("section", "class", "cell")
		p.element("h3", fmt.Sprintf("Group %d differs from most with %s", i+1, g.kernel()))
		p.hostLinks(g.hosts)
		all := differences(most, g)
		var rows [][]string
		for _, d := range all {
			rows = append(rows, []string{d.Name, verdictWord(d.Before.Verdict), verdictWord(d.After.Verdict),
				d.After.says()})
		}
		p.countedTable("Targets with another verdict", len(all), []string{"Target", "Most", "Here", "Why"}, rows)
		p.close("section")
	}
	var rows [][]string
	for i, g := range groups {
		rows = append(rows, []string{fmt.Sprint(i + 1), fmt.Sprint(len(g.hosts)), g.kernel(),
			strings.TrimPrefix(verdictCounts(g.Verdicts), ": ")})
	}
	p.openTable("Groups of hosts", []string{"Group", "Hosts", "Kernel", "Verdicts of each"}, rows)
	for i, g := range groups {
		p.foldedLinks(fmt.Sprintf("Group %d: %s", i+1, pfconf.Count(len(g.hosts), "host")), g.hosts)
	}
}

func verdictWord(v matrix.Verdict) string {
	if v == "" {
		return "not run"
	}
	return string(v)
}

// hostLinks writes links to the cards of hosts, folded if there are many.
func (p *page) hostLinks(hosts []*Host) {
	if len(hosts) <= maxColumns {
		p.links(hosts)
		return
	}
	p.foldedLinks(pfconf.Count(len(hosts), "host"), hosts)
}

// foldedLinks writes links to the cards of hosts, which a click on the title shows.
func (p *page) foldedLinks(title string, hosts []*Host) {
	p.open("details")
	p.element("summary", title)
	p.links(hosts)
	p.close("details")
}

func (p *page) links(hosts []*Host) {
	p.open("p", "class", "names mono")
	for _, h := range hosts {
		p.element("a", h.Name, "href", "#"+p.card(h))
	}
	p.close("p")
}

// card is the id of a host's card.
func (p *page) card(h *Host) string {
	if p.cardOf == nil {
		p.cardOf = map[*Host]string{}
		for i, h := range p.fleet.hosts {
			p.cardOf[h] = fmt.Sprintf("host%d", i+1)
		}
	}
	return p.cardOf[h]
}

// changes writes what changed since the last time, kernel by kernel.
func (p *page) changes(s *since) {
	p.element("h2", "Since "+s.File)
	for _, r := range s.Kernels {
		if len(r.Changes) == 0 {
			p.element("p", r.title()+": nothing changed.")
			continue
		}
		var rows [][]string
		for _, x := range r.Changes {
			rows = append(rows, []string{kindWord(x.Kind), x.Name, x.line(r)})
		}
		p.element("h3", r.title())
		p.openTable(r.title(), []string{"Change", "Target", "Verdicts and hosts"}, rows)
	}
	for _, line := range s.hosts() {
		p.element("p", line+".")
	}
}

// troubles writes what is wrong with hosts beside the verdicts, and what was decided of files.
func (p *page) troubles() {
	hosts := slices.DeleteFunc(slices.Clone(p.fleet.hosts), func(h *Host) bool {
		return len(h.unable()) == 0 && (h.Doctor == nil || len(h.Doctor.Problems) == 0)
	})
	if len(hosts) > 0 {
		p.element("h2", "Beside the verdicts", "id", "beside")
		for _, h := range hosts {
			p.open("p")
			p.element("a", h.Name, "href", "#"+p.card(h), "class", "mono")
			var all []string
			for _, u := range h.unable() {
				all = append(all, u.File+": "+u.Error)
			}
			if h.Doctor != nil {
				for _, problem := range h.Doctor.Problems {
					all = append(all, "doctor: "+problem.Severity+": "+problem.What)
				}
			}
			p.text(" " + strings.Join(all, "; "))
			p.close("p")
		}
	}
	for _, text := range p.fleet.notes {
		p.element("p", "Note: "+text+".", "class", "muted")
	}
}

// cards writes a card for each host, hidden until it is asked for.
func (p *page) cards() {
	p.element("h2", "The hosts", "class", "screen")
	p.hostLinks(p.fleet.hosts)
	p.element("p", "The host that was chosen is shown here.", "class", "muted screen")
	told := map[string]*Host{} // explanations, by their text
	for _, h := range p.fleet.hosts {
		p.open("section", "id", p.card(h), "class", "cell quiet", "tabindex", "-1", "aria-labelledby", "n"+p.card(h))
		p.element("h3", h.Name, "id", "n"+p.card(h))
		count := (&Fleet{hosts: []*Host{h}}).count()
		p.open("dl")
		if h.Kernel != "" {
			p.pair("Kernel", h.kernel())
		}
		if h.ran() {
			p.pair("Verdicts", strings.TrimPrefix(verdictCounts(count), ": "))
			p.pair("Program", "pfdivert "+h.Version)
			p.pair("Started", h.Started.Format(time.RFC3339)+", for "+duration(h.Seconds))
		}
		p.pair("Files", strings.Join(h.Files, ", "))
		for _, u := range h.unable() {
			p.pair("Error", u.File+": "+u.Error)
		}
		p.close("dl")
		p.doctorCard(h.Doctor)
		if p.grouped() {
			p.targetsOf(h, told)
		}
		p.close("section")
	}
}

// doctorCard writes what doctor found on a host.
func (p *page) doctorCard(d *Doctor) {
	if d == nil {
		return
	}
	if len(d.Problems) == 0 {
		p.element("p", "doctor: no problem found.")
	}
	for _, problem := range d.Problems {
		p.element("h4", "doctor: "+problem.Severity+": "+problem.What)
		p.open("dl", "class", "explained")
		for _, line := range problem.lines() {
			p.element("dt", line[0])
			p.open("dd")
			p.lines(line[1])
			p.close("dd")
		}
		p.close("dl")
	}
	for _, note := range d.Notes {
		p.element("p", note, "class", "muted")
	}
}

// targetsOf writes the targets of a host that did not pass. A cause that was explained on another
// card is named only; told has those.
func (p *page) targetsOf(h *Host, told map[string]*Host) {
	for _, v := range matrix.Verdicts {
		if works(v) && fine(v) {
			continue
		}
		for _, o := range h.summaries {
			if o.Verdict != v {
				continue
			}
			p.open("p")
			p.verdict(o.Verdict, string(o.Verdict), "", "", "")
			p.element("span", " "+o.Name, "class", "mono")
			p.text(" " + o.says())
			p.close("p")
			if lines := o.explained(); lines != nil && !fine(v) {
				text := fmt.Sprint(lines)
				if first := told[text]; first == nil {
					told[text] = h
					p.explanation(o)
				} else if first != h {
					p.open("p", "class", "muted")
					p.text("Its cause is that explained at ")
					p.element("a", first.Name, "href", "#"+p.card(first))
					p.close("p")
				}
			}
		}
	}
}
