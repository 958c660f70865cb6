package roles

import (
	"fmt"
	"html"
	"strings"
)

// html writes the page: the problems, a diagram for each flow that was traced, the notes.
func (p *doctorPrinter) html() string {
	var b strings.Builder
	e := html.EscapeString
	fmt.Fprintf(&b, `<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>%s</title>
<style>
body { font: 15px/1.5 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }
pre { background: #8882; padding: .5em; overflow-x: auto } .bad { color: #b00 } .warn { color: #a60 }
ol.way { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3em }
ol.way li { border: 1px solid #888; border-radius: .3em; padding: .2em .5em; font-size: 13px; max-width: 24em; overflow-wrap: anywhere }
ol.way li + li::before { content: "→ "; color: #888 } ol.way li.end { border-color: #b00 }
</style>
<h1>%s</h1>
`, e("pfdivert doctor: "+p.heading()), e(p.heading()))
	for _, x := range p.d.Problems {
		fmt.Fprintf(&b, "<section><h2 class=%q>%s: %s</h2>\n<p>%s</p>\n", x.Severity, x.Severity, e(x.What), e(x.Why))
		for _, part := range []struct{ title, text string }{
			{"Seen", strings.Join(x.Seen, "\n")}, {"Check", x.Check}, {"Fix", x.Fix}, {"Price", x.Price},
			{"Instead", x.Narrow},
		} {
			if part.text != "" {
				fmt.Fprintf(&b, "<h3>%s</h3><pre>%s</pre>\n", part.title, e(part.text))
			}
		}
		fmt.Fprintln(&b, "</section>")
	}
	fmt.Fprintln(&b, "<h2>Flows</h2>")
	for _, r := range p.d.Results {
		class := ""
		if !r.OK() {
			class = ` class="bad"`
		}
		fmt.Fprintf(&b, "<details><summary%s>%s: %s, %s</summary>\n", class, e(r.Flow.ID), e(string(r.Outcome)),
			e(p.receiver(r)))
		for _, k := range p.d.Paths[r.Flow.ID].Packets {
			way := p.config.Way(k)
			fmt.Fprintf(&b, "<p>%s</p><ol class=\"way\">", e(fmt.Sprintf("%s from %v", k.Name(), k.From)))
			for i, hop := range way {
				end := ""
				if i == len(way)-1 {
					end = ` class="end"`
				}
				fmt.Fprintf(&b, "<li%s>%s</li>", end, e(hop))
			}
			fmt.Fprintln(&b, "</ol>")
		}
		fmt.Fprintln(&b, "</details>")
	}
	if len(p.d.Notes) > 0 {
		fmt.Fprintln(&b, "<h2>What this does not cover</h2><ul>")
		for _, n := range p.d.Notes {
			fmt.Fprintf(&b, "<li>%s</li>\n", e(n))
		}
		fmt.Fprintln(&b, "</ul>")
	}
	return b.String()
}
