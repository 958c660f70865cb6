package report

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// sections writes a section for each target that has none yet. They are hidden until they are asked
// for; on paper the failures are shown.
func (p *page) sections() {
	p.element("h2", "The targets", "class", "screen")
	p.element("p", "The target that was chosen is shown here.", "class", "muted screen")
	for i := range p.summaries {
		if !p.written[i] {
			p.section(i, " quiet", nil)
		}
	}
}

// section writes what is known of a target, with a class of its own. alike are others that failed
// for the same cause.
func (p *page) section(i int, own string, alike []int) {
	o := p.summaries[i]
	p.written[i] = true
	p.open("section", "id", id(i), "class", "cell "+class(o.Verdict)+own, "tabindex", "-1",
		"aria-labelledby", "h"+id(i))
	p.open("h3", "id", "h"+id(i))
	p.verdict(o.Verdict, string(cmp.Or(o.Verdict, "not run")), "", "", "")
	p.element("span", o.Name, "class", "mono")
	if o.Host != "" {
		p.element("span", "on "+o.Host)
	}
	if o.Verdict != "" {
		p.element("span", duration(o.Seconds), "class", "took")
	}
	p.close("h3")
	if proves := p.proofs[o.Name]; proves != "" {
		p.element("p", "It proves: "+proves+".", "class", "muted")
	}
	if o.Counts != "" {
		p.element("p", fmt.Sprintf("Runs: %d, %s. The time is the median.", o.Runs, o.Counts))
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
	if len(alike) > 0 {
		p.element("p", fmt.Sprintf("%s failed for the same cause:", pfconf.Count(len(alike), "other target")))
		p.names(alike)
	}
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
func (p *page) explanation(o Summary) {
	lines := o.explained()
	if lines == nil {
		return
	}
	p.open("dl", "class", "explained")
	for _, line := range lines {
		p.element("dt", strings.ToUpper(line[0][:1])+line[0][1:])
		p.open("dd")
		switch line[0] {
		case "check", "fix":
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
func (p *page) transcripts(o Summary) {
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

// evidence writes what the hosts showed: the ladder, and all of it in tables.
func (p *page) evidence(i int, o Summary) {
	e := o.Evidence
	l := newLadder(e, o.Transcript)
	l.addLastSeen(o.Explanation)
	if len(l.rungs) > 0 {
		p.open("figure")
		p.open("div", "class", "scroll", "role", "region", "aria-label", "Packets of "+o.Name, "tabindex", "0")
		l.svg(&p.markup, "l"+id(i), "What happened to the packets of "+o.Name)
		p.close("div")
		text := "Arrows are packets, dashed ones what REMOTE's sockets logged. Times are since the first packet."
		if l.controls {
			text += " A control is sent before the rule is loaded."
		}
		if l.shift != 0 {
			text += fmt.Sprintf(" REMOTE's clock is %s LOCAL's; that is taken off.", ahead(l.shift))
		}
		if l.more > 0 {
			text += fmt.Sprintf(" %d more packets are not drawn.", l.more)
		}
		p.element("figcaption", text)
		p.close("figure")
	}
	p.packets("REMOTE", e.Remote.Packets, l.first.Add(l.shift))
	p.side("REMOTE", e.Remote)
	p.packets("LOCAL", e.Local.Packets, l.first)
	p.side("LOCAL", e.Local)
}

// ahead says how one clock is to another.
func ahead(d time.Duration) string {
	if d < 0 {
		return duration(-d.Seconds()) + " behind"
	}
	return duration(d.Seconds()) + " ahead of"
}

// table is a table in a details element; nothing without rows.
func (p *page) table(title string, head []string, rows [][]string) {
	p.countedTable(title, len(rows), head, rows)
}

// countedTable is a table of n things, of which not all may have a row.
func (p *page) countedTable(title string, n int, head []string, rows [][]string) {
	if n == 0 {
		return
	}
	p.open("details")
	p.element("summary", fmt.Sprintf("%s (%d)", title, n))
	p.openTable(title, head, rows)
	p.close("details")
}

// openTable writes a table that is not folded.
func (p *page) openTable(title string, head []string, rows [][]string) {
	p.open("div", "class", "scroll", "role", "region", "aria-label", title, "tabindex", "0")
	p.open("table", "class", "list")
	p.open("thead")
	p.open("tr")
	for _, h := range head {
		p.element("th", h, "scope", "col")
	}
	p.close("tr")
	p.close("thead")
	p.open("tbody")
	long := longColumns(rows)
	for _, row := range rows {
		p.open("tr")
		for i, text := range row {
			if long[i] {
				p.open("td", "class", "long")
			} else {
				p.open("td")
			}
			p.lines(strings.ReplaceAll(text, "\t", " "))
			p.close("td")
		}
		p.close("tr")
	}
	p.close("tbody")
	p.close("table")
	p.close("div")
}

// longColumns tells which columns have texts that are broken into lines. The others are as wide
// as their texts; where that is wider than the window the table is scrolled.
func longColumns(rows [][]string) map[int]bool {
	const most = 48 // characters
	long := map[int]bool{}
	for _, row := range rows {
		for i, text := range row {
			long[i] = long[i] || len(text) > most || strings.Contains(text, "\n")
		}
	}
	return long
}

// packets is the ladder as a table, host by host; first is when its first packet was sent, by the
// host's clock.
func (p *page) packets(host string, packets []evidence.Packet, first time.Time) {
	var rows [][]string
	for i, packet := range packets {
		if i == maxPacketRows {
			rows = append(rows, []string{"", "", "", "", "", "", fmt.Sprintf("and %d more", len(packets)-i), ""})
			break
		}
		d := evidence.Decode(packet)
		what := d.Summary
		if d.Pflog != "" {
			what += "; " + d.Pflog
		}
		if payload := logged(d.Payload); payload != "" {
			what += fmt.Sprintf("; %q", shorten(payload, 60))
		}
		rows = append(rows, []string{
			packet.Time.UTC().Format("15:04:05.000000"), rungTime(packet.Time.Sub(first)), packet.Interface,
			packet.Direction, d.From(), d.To(), what, fmt.Sprint(packet.Length),
		})
	}
	p.countedTable("Packets on "+host, len(packets), []string{"time (UTC)", "since the first",
		"interface", "", "from", "to", "what", "bytes"}, rows)
}

// maxPacketRows is how many packets of a host are listed.
const maxPacketRows = 200

// side is the rest of what a host showed.
func (p *page) side(host string, c evidence.Record) {
	var rows [][]string
	for _, r := range c.Rules {
		rows = append(rows, []string{r.Label, r.Text, counters(r.Before), counters(r.After)})
	}
	p.table("Rules on "+host, []string{"label", "rule", "before", "after"}, rows)

	rows = nil
	for _, t := range c.Trace {
		way := make([]string, len(t.Hops))
		for i, h := range t.Hops {
			way[i] = hopText(h)
		}
		rows = append(rows, []string{t.Packet, strings.Join(append(way, t.End), "\n")})
	}
	p.table("Trace by the kernel of "+host+", of a second run", []string{"packet",
		"rules that it met, and its end"}, rows)

	rows = nil
	for _, s := range c.States {
		rows = append(rows, []string{
			fmt.Sprint(s.Number), ends(s.Near, s.Far), s.Direction.String(), s.Phase, s.Label,
		})
	}
	p.table("States on "+host, []string{"protocol", "from and to", "", "phase", "rule"}, rows)

	rows = nil
	for _, s := range c.Sockets {
		rows = append(rows, []string{s.Proto, ends(s.Local, s.Remote), s.State, s.Text})
	}
	p.table("Sockets on "+host, []string{"protocol", "own and other address", "state", ""}, rows)

	rows = nil
	for _, a := range c.Answers {
		rows = append(rows, []string{a.Command, a.Text})
	}
	p.table("Addresses and routes on "+host, []string{"command", "answer"}, rows)

	rows = nil
	for _, m := range c.Moved {
		rows = append(rows, []string{m.Name, fmt.Sprintf("%+d", m.By)})
	}
	p.table("Counters that moved on "+host+", of all targets", []string{"counter", "by"}, rows)

	rows = nil
	for _, text := range c.Errors {
		rows = append(rows, []string{text})
	}
	p.table("ICMP errors that sockets on "+host+" received", []string{"error"}, rows)

	rows = nil
	for _, text := range c.Missing {
		rows = append(rows, []string{text})
	}
	p.table("What could not be asked on "+host, []string{"question"}, rows)
}

func counters(c *pfconf.Counters) string {
	if c == nil {
		return ""
	}
	text := fmt.Sprintf("matched %d, done %d", c.Matched, c.Done)
	for _, more := range []struct {
		name string
		n    uint64
	}{{"replies", c.Replies}, {"kernel's", c.Kernel}, {"states", c.States}} {
		if more.n > 0 {
			text += fmt.Sprintf(", %s %d", more.name, more.n)
		}
	}
	return text
}

// ends are two addresses; one that is not known is '-'.
func ends(a, b netip.AddrPort) string {
	text := func(a netip.AddrPort) string {
		if !a.IsValid() {
			return "-"
		}
		return a.String()
	}
	return text(a) + "  " + text(b)
}
