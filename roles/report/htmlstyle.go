package report

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"pfdivert/matrix"
)

// colour is one of the page's colours, light and dark.
type colour struct{ name, light, dark string }

// colours are all that the page uses; TestContrast computes the contrast of what is on
// what.
var colours = []colour{
	{"back", "#ffffff", "#14171a"},
	{"panel", "#f5f6f8", "#1d2125"},
	{"text", "#1c2024", "#e6e9ec"},
	{"muted", "#59626b", "#a3adb7"},
	{"line", "#d5dae0", "#3a424a"},
	{"link", "#0b57d0", "#8ab4f8"},
	{"pass", "#14532d", "#9be3b3"}, {"pass-back", "#e3f4e8", "#123421"},
	{"xfail", "#6b4400", "#f5cf85"}, {"xfail-back", "#fdf0d5", "#402c05"},
	{"skip", "#3f4650", "#c4ccd4"}, {"skip-back", "#e8ebef", "#2b3138"},
	{"fail", "#8a1111", "#ffb0a8"}, {"fail-back", "#fde7e7", "#4a1414"},
	{"xpass", "#0b4a6f", "#9fd5f7"}, {"xpass-back", "#dff0fb", "#0c3149"},
	{"error", "#6b2170", "#eab8f0"}, {"error-back", "#f6e6f7", "#3d1742"},
	{"none", "#59626b", "#a3adb7"}, {"none-back", "#ffffff", "#14171a"},
}

// shapes are a verdict's sign, in a square of 16: each has an outline of its own, so that
// it is known without its colour.
var shapes = map[matrix.Verdict]string{
	matrix.Pass: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zm3.6 5.1-4.2 5.3a.9.9 0 0 1-1.3.1L3.9 9.4l1.1-1.2 1.6 1.4 3.7-4.6z",                 // disc with a tick
	matrix.Fail: "M5 1h6l4 4v6l-4 4H5l-4-4V5zm.9 3.6L4.6 5.9 6.7 8l-2.1 2.1 1.3 1.3L8 9.3l2.1 2.1 1.3-1.3L9.3 8l2.1-2.1-1.3-1.3L8 6.7z", // octagon with a cross
	// triangle with an exclamation mark
	matrix.Error: "M8 1l7.5 13.5H.5zM7.1 6v4.2h1.8V6zm0 5.2V13h1.8v-1.8z",
	// frame with a bar
	matrix.XFail: "M1 1h14v14H1zm2 2v10h10V3zm2 4h6v2H5z",
	// diamond
	matrix.XPass: "M8 0l8 8-8 8-8-8zm0 3.5L3.5 8 8 12.5 12.5 8zM7 7h2v2H7z",
	// bar
	matrix.Skip: "M1 7h14v2H1z",
}

// class is the verdict's name in the style sheet.
func class(v matrix.Verdict) string {
	if _, ok := shapes[v]; !ok {
		return "none"
	}
	return strings.ToLower(string(v))
}

// styleSheet is the page's only style: there is no attribute with style in it.
var styleSheet = makeStyleSheet()

func makeStyleSheet() string {
	var light, dark, verdicts strings.Builder
	for _, c := range colours {
		fmt.Fprintf(&light, "--%s:%s;", c.name, c.light)
		fmt.Fprintf(&dark, "--%s:%s;", c.name, c.dark)
	}
	for _, v := range append([]matrix.Verdict{""}, matrix.Verdicts...) {
		fmt.Fprintf(&verdicts, ".v.%[1]s{color:var(--%[1]s);background:var(--%[1]s-back)}\n.cell.%[1]s{border-left-color:var(--%[1]s)}\n", class(v))
	}
	return ":root{color-scheme:light dark;" + light.String() + "}\n" +
		"@media screen and (prefers-color-scheme:dark){:root{" + dark.String() + "}}\n" +
		styleRules + verdicts.String()
}

const styleRules = `*{box-sizing:border-box}
body{margin:0 auto;max-width:64rem;padding:1.5rem 1rem 4rem;color:var(--text);background:var(--back);font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .25rem}
h2{font-size:1.2rem;line-height:1.3;margin:2.5rem 0 .75rem}
h3{font-size:1rem;margin:0 0 .5rem;display:flex;flex-wrap:wrap;gap:.25rem .75rem;align-items:center}
h4{font-size:.875rem;margin:1rem 0 .25rem}
p{margin:.5rem 0;max-width:46rem}
a{color:var(--link)}
:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:2px}
code,pre,.mono{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.875em}
pre{margin:.25rem 0;padding:.5rem .75rem;background:var(--panel);border:1px solid var(--line);border-radius:4px;white-space:pre-wrap}
.muted,dt{color:var(--muted)}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.25rem 1rem;margin:.75rem 0}
dd{margin:0}
.counts{display:flex;flex-wrap:wrap;gap:.5rem;list-style:none;padding:0;margin:1rem 0}
.v{display:inline-flex;align-items:center;gap:.4em;padding:.15rem .5rem;min-height:1.75rem;border-radius:4px;border:1px solid;font-size:.875rem;font-weight:600;text-decoration:none;white-space:nowrap}
.v svg{width:1em;height:1em;fill:currentColor;flex:none}
a.v:hover{text-decoration:underline}
.scroll{overflow-x:auto;max-width:100%;background:linear-gradient(90deg,var(--back) 40%,transparent) left/3rem 100% no-repeat local,linear-gradient(270deg,var(--back) 40%,transparent) right/3rem 100% no-repeat local,linear-gradient(90deg,var(--line),transparent) left/1rem 100% no-repeat,linear-gradient(270deg,var(--line),transparent) right/1rem 100% no-repeat}
.narrow{display:none}
table{border-collapse:collapse}
th,td{text-align:left;padding:.2rem .75rem .2rem 0;vertical-align:middle}
.list th,.list td{border-top:1px solid var(--line);vertical-align:top;font-size:.875rem}
.list thead th{border-top:0;color:var(--muted);font-weight:400}
.list th,.list td,.matrix th,.matrix td{white-space:nowrap;overflow-wrap:normal}
.list td{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
.list .long{white-space:pre-wrap;overflow-wrap:anywhere;min-width:18rem}
.matrix{margin-bottom:1.5rem}
.matrix caption{text-align:left;font-weight:600;padding-bottom:.25rem}
.matrix tbody th{font-weight:400;padding-right:.625rem}
.matrix td,.matrix thead th{padding-left:.375rem;padding-right:.375rem}
.matrix tr>:first-child{position:sticky;left:0;padding-left:0;min-width:9rem;background:var(--back);z-index:1}
.host{display:inline-block;position:sticky;left:9.5rem}
.matrix thead th{font-size:.875rem;color:var(--muted);font-weight:600}
.matrix .v{min-width:5.75rem}
.matrix .v.pass{border-color:transparent}
.panels{display:flex;flex-wrap:wrap;gap:0 3rem;align-items:flex-start}
.causes{padding-left:0;list-style:none}
.causes>li{margin:0 0 1rem}
.names{margin:.25rem 0}
.names a{display:inline-block;margin-right:.75rem}
.cell{margin:1.5rem 0;padding:1rem;border:1px solid var(--line);border-left-width:4px;border-radius:4px;scroll-margin-top:1rem}
.cell:target{outline:2px solid var(--link);outline-offset:2px}
.quiet{display:none}
.quiet:target{display:block}
.took{font-weight:400;color:var(--muted);font-size:.875rem}
details{border-top:1px solid var(--line);margin-top:.5rem}
summary{cursor:pointer;padding:.4rem 0;min-height:1.75rem}
figure{margin:1rem 0 .5rem}
figcaption{font-size:.875rem;color:var(--muted)}
.ladder{display:block;overflow:visible;font-size:13px}
.ladder text{fill:var(--text);stroke:var(--back);stroke-width:4px;paint-order:stroke}
.ladder .lane{font-weight:600}
.ladder .at{fill:var(--muted)}
.ladder path{fill:none;stroke:var(--text);stroke-width:1.5}
.ladder .line{stroke:var(--muted);stroke-width:1;stroke-dasharray:2 3}
.ladder .head,.ladder .mark{fill:var(--text);stroke:none}
.ladder .control .what{fill:var(--muted)}
.ladder .control path{stroke:var(--muted)}
.ladder .control .head{fill:var(--muted);stroke:none}
.ladder .event .way{stroke-dasharray:5 3}
.ladder .event path{stroke:var(--link)}
.ladder .event .head,.ladder .event .mark{fill:var(--link);stroke:none}
.ladder .lost path{stroke:var(--fail)}
.ladder .lost .what{fill:var(--fail)}
.signs{position:absolute;width:0;height:0}
@media(max-width:30rem){body{padding:1rem .75rem 3rem}dl{grid-template-columns:minmax(0,1fr);gap:0}dd{margin-bottom:.5rem}.cell{padding:.75rem}.matrix .v{min-width:5rem;padding:.15rem .3rem}.matrix tbody th{padding-right:.25rem;font-size:.875rem}.host{max-width:5.5rem;white-space:normal;overflow-wrap:anywhere}}
@media screen and (min-width:66rem){.panels{width:max-content;max-width:calc(50vw + 30rem)}}
@media(max-width:48rem){.narrow{display:block}}
@media print{body{max-width:none;padding:0;font-size:10pt}.screen,.narrow{display:none}.scroll{background:none}.list th,.list td{white-space:normal;overflow-wrap:anywhere}.list .long{min-width:0}.cell.fail,.cell.error,.cell.xpass{display:block}.cell,tr{break-inside:avoid}.back{display:none}details::details-content{content-visibility:visible;display:block;height:auto}.ladder{max-width:100%;height:auto}}
`

// contentPolicy lets the browser do nothing but apply that style sheet: no script, no request,
// no form.
func contentPolicy() string {
	sum := sha256.Sum256([]byte(styleSheet))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'"
}
