package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/matrix/explain"
	"pfdivert/roles/lab/labtest"
)

// nasty is text that ends what it stands in, of all the formats.
var nasty = []string{
	"# SKIP not really", "ok 7 - forged\nnot ok 8", "  ...", "---", "Bail out! no", `\# \`, "\"\n  ...\nok 99",
	"]]></failure><testcase name=\"x\"/>", "</style><script>alert(1)</script>", "\" onload=\"alert(1)", "' onclick='x",
	"&lt;b>", "<!--", "--><img src=x onerror=alert(1)>",
	"\x00\x1b[2J\x9b\u009b\u202e\u2066\ufffe\uffff\U000e0001\x7f\xff\xed\xa0\x80", "a: b", "- a", "{{.}}", "${x}",
	"</svg><script>", "\u2028\u2029",
}

// nastyOutcomes have nasty text wherever text can come from elsewhere.
func nastyOutcomes() (Run, []Summary) {
	run := with(run26, func(r *Run) {
		r.Kernel, r.Version = nasty[8]+nasty[14], nasty[0]
		r.Targets = args26[:len(nasty)]
	})
	var summaries []Summary
	for i, text := range nasty {
		summaries = append(summaries, Summary{Result: matrix.Result{
			Name: args26[i], Verdict: []matrix.Verdict{matrix.Fail, matrix.XFail, matrix.Skip, matrix.Error}[i%4],
			Reason: text, Detail: text, Seconds: 0.001,
			Explanation: &explain.Explanation{Cause: text, Expected: text, LastSeen: text, Likely: text, Check: text,
				Mend: text},
			Transcript: []matrix.Transcript{{Host: "local", Name: text, Text: text + "\n" + text}},
		}})
	}
	return run, summaries
}

// explained is mixed with transcripts and an explanation of what failed.
func explained() []matrix.Result {
	results := mixed()
	for i := range results {
		if r := &results[i]; r.Verdict == matrix.Fail {
			r.Explanation = &explain.Explanation{
				Cause: "policy-rule-missing", Expected: "the SYN reaches the socket on 127.0.0.1:5001",
				LastSeen: "REMOTE's rule", Likely: "There is no policy rule for the mark.",
				Check: "ip rule show", Mend: "ip rule add fwmark 0x70660076 lookup 188",
			}
			r.Transcript = []matrix.Transcript{
				{Host: "local", Name: "client", Text: "connect sock: 10.192.0.1 40001\n"},
				{Host: "remote", Name: "server", Text: "listen sock: 127.0.0.1 5001\nShutdown server\n"},
			}
		}
	}
	return results
}

// reports are the runs whose reports are compared with golden files.
func reports() map[string]func() (Run, []Summary) {
	once := func(run Run, results []matrix.Result) func() (Run, []Summary) {
		return func() (Run, []Summary) { return run, Summaries(run, results) }
	}
	severalRun, severalResults := several(args26[:6])
	return map[string]func() (Run, []Summary){
		"mixed":       once(with(run26, func(r *Run) { r.Seed = 42 }), explained()),
		"interrupted": once(with(run26, func(r *Run) { r.Interrupted = true }), passes(args26[:13])),
		// Each target was run, and then the run was ended.
		"interrupted-stats": func() (Run, []Summary) {
			stats := NewStats(args26)
			for _, r := range passes(args26) {
				stats.Add(r)
			}
			run := with(run26, func(r *Run) { r.Interrupted = true })
			return run, stats.Summaries(run)
		},
		"none": once(with(run26, func(r *Run) { r.Targets = nil }), nil),
		"skipped": once(Run{Version: "v1.2", Started: run26.Started, Skipped: "No remote host is given. #1 \x1b[2J"},
			nil),
		"hosts": once(severalRun, severalResults),
		"nasty": nastyOutcomes,
		"stats": func() (Run, []Summary) {
			run := with(run26, func(r *Run) { r.Seconds = 3.9 })
			return run, sampleStats().Summaries(run)
		},
	}
}

func render(t *testing.T, name string, write func(w *bytes.Buffer, run Run, summaries []Summary) error) []byte {
	t.Helper()
	var b bytes.Buffer
	run, summaries := reports()[name]()
	if err := write(&b, run, summaries); err != nil {
		t.Fatal(err)
	}
	assertClean(t, b.String())
	return b.Bytes()
}

func tap(w *bytes.Buffer, run Run, o []Summary) error   { return WriteTAP(w, run, o) }
func junit(w *bytes.Buffer, run Run, o []Summary) error { return WriteJUnit(w, run, o) }

func TestTAPAndJUnit(t *testing.T) {
	for name := range reports() {
		golden(t, name+".tap", render(t, name, tap))
		golden(t, name+".junit.xml", render(t, name, junit))
	}
}

// TestTAPConsumers: prove and tappy count what the run counted, and find no fault with
// the syntax.
func TestTAPConsumers(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/results.tap"
	page, err := os.ReadFile("../../docs/reports.md")
	if err != nil {
		t.Fatal(err)
	}
	// Debian 12's prove knows no version after 13, which 14 only adds to.
	command := regexp.MustCompile(`(?m)^    (prove .* results\.tap)$`).FindSubmatch(page)
	if command == nil {
		t.Fatal("docs/reports.md does not say how to use prove")
	}
	for name := range reports() {
		text := render(t, name, tap)
		run, summaries := reports()[name]()
		notOK, played := 0, 0
		var want []string // the numbers of those that make prove fail
		for i, o := range summaries {
			switch o.Verdict {
			case matrix.Fail, matrix.Error, matrix.XPass:
				notOK++
				want = append(want, fmt.Sprint(i+1))
			}
			if o.Verdict != "" {
				played++
			}
		}
		t.Run("prove "+name, func(t *testing.T) {
			if len(summaries) == 0 && run.Skipped == "" {
				t.Skip("prove takes no tests for a fault")
			}
			labtest.Program(t, "prove")
			if err := os.WriteFile(file, text, 0o666); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "-c", string(command[1]))
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			said := string(out)
			if passed := notOK == 0 && !run.Interrupted; (err == nil) != passed {
				t.Errorf("%v, want success: %v\n%s", err, passed, said)
			}
			// To bail out may be to leave the plan unfulfilled.
			if strings.Contains(said, "Parse errors") != (played < len(summaries)) ||
				strings.Contains(said, "Bailout") != run.Interrupted {
				t.Error(said)
			}
			if skipped := strings.Contains(said, "skipped: No remote host is given."); skipped != (run.Skipped != "") {
				t.Error(said)
			}
			if m := regexp.MustCompile(`Failed tests?: +([^A-Z]*)`).FindStringSubmatch(said); notOK > 0 &&
				(m == nil || !slices.Equal(expandRanges(m[1]), want)) {
				t.Errorf("want %v to have failed:\n%s", want, said)
			}
		})
		t.Run("tappy "+name, func(t *testing.T) {
			if len(summaries) == 0 || run.Interrupted {
				t.Skip("tappy ends without a word")
			}
			if err := os.WriteFile(file, text, 0o666); err != nil {
				t.Fatal(err)
			}
			out, _ := exec.Command(labtest.Program(t, "tappy"), file).CombinedOutput()
			said := string(out)
			if !strings.Contains(said, fmt.Sprintf("Ran %d tests", played)) {
				t.Errorf("want %d tests:\n%s", played, said)
			}
			if m := regexp.MustCompile(`failures=(\d+)`).FindStringSubmatch(said); notOK > 0 &&
				(m == nil || m[1] != fmt.Sprint(notOK)) {
				t.Errorf("want %d failures:\n%s", notOK, said)
			}
		})
	}
}

// expandRanges makes "1, 3-5" 1 3 4 5.
func expandRanges(text string) (all []string) {
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		var first, last int
		if n, _ := fmt.Sscanf(part, "%d-%d", &first, &last); n == 1 {
			last = first
		}
		for i := first; i <= last; i++ {
			all = append(all, fmt.Sprint(i))
		}
	}
	return all
}

// TestTAPBlocks: Perl's parser reads each block of YAML, and what it reads is what was
// written.
func TestTAPBlocks(t *testing.T) {
	perl := labtest.Program(t, "perl")
	text := render(t, "nasty", tap)
	const script = `
use TAP::Parser;
local $/; my $tap = <STDIN>; $tap =~ s/14/13/;
my $parser = TAP::Parser->new({ tap => $tap });
while (my $r = $parser->next) {
	print length($r->data->{message}) > 0 ? $r->data->{verdict} : "no message", " ", scalar @{$r->data->{transcripts}}, "\n" if $r->is_yaml;
	print "unknown: ", $r->as_string, "\n" if $r->is_unknown;
}
print map { "error: $_\n" } $parser->parse_errors;`
	cmd := exec.Command(perl, "-e", script)
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.CombinedOutput()
	var want strings.Builder
	_, summaries := nastyOutcomes()
	for _, o := range summaries {
		fmt.Fprintf(&want, "%s 1\n", o.Verdict)
	}
	if err != nil || string(out) != want.String() {
		t.Errorf("%v\n%s\nwant\n%s", err, out, &want)
	}
}

// TestJUnitSchema: xmllint finds the XML to be as the schema says.
func TestJUnitSchema(t *testing.T) {
	xmllint := labtest.Program(t, "xmllint")
	for name := range reports() {
		cmd := exec.Command(xmllint, "--noout", "--nonet", "--schema", "testdata/junit.xsd", "-")
		cmd.Stdin = bytes.NewReader(render(t, name, junit))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	// The schema can fail.
	text := render(t, "mixed", junit)
	for _, change := range [][2]string{
		{` failures="2"`, ""}, {`<testsuites>`, `<testsuites name="x">`}, {`time="0.041"`,
			`time="0.041416"`}, {`timestamp="2026-03-04T05:06:07"`, `timestamp="2026-03-04T05:06:07Z"`},
		{"<failure message=", "<failed message="},
		{`name="inet-args-tcp-reply"`, `name="inet-args-tcp-to"`}, {"<system-out>",
			"<system-out>\x01"}, {"<system-out></system-out>\n", ""},
	} {
		changed := bytes.Replace(text, []byte(change[0]), []byte(change[1]), 1)
		cmd := exec.Command(xmllint, "--noout", "--nonet", "--schema", "testdata/junit.xsd", "-")
		cmd.Stdin = bytes.NewReader(changed)
		if cmd.Run() == nil || bytes.Equal(changed, text) {
			t.Errorf("with %q in place of %q it is taken", change[1], change[0])
		}
	}
}

// FuzzTAPAndJUnit: whatever text came from elsewhere, each target is one test point with one block,
// and one case of the same elements.
func FuzzTAPAndJUnit(f *testing.F) {
	for _, text := range nasty {
		f.Add(text)
	}
	points := regexp.MustCompile(`^(TAP version 14|1\.\.3|# .*|not ok 1 - [^#]*|not ok 2 - [^#]* # TODO known failure: .*|ok 3 - [^#]* # SKIP .*)$`)
	f.Fuzz(func(t *testing.T, text string) {
		run := with(run26, func(r *Run) { r.Kernel, r.Version = text, text })
		var summaries []Summary
		for _, v := range []matrix.Verdict{matrix.Fail, matrix.XFail, matrix.Skip} {
			summaries = append(summaries, Summary{Result: matrix.Result{
				Name: "inet-args-tcp-to" + strings.ReplaceAll(text, "#", ""), Verdict: v, Reason: text, Detail: text,
				Explanation: &explain.Explanation{Cause: "x" + text, Mend: "x" + text},
				Transcript:  []matrix.Transcript{{Host: "local", Name: text, Text: "x" + text}},
			}})
		}
		var b bytes.Buffer
		if err := WriteTAP(&b, run, summaries); err != nil {
			t.Fatal(err)
		}
		assertClean(t, b.String())
		begun, ended := 0, 0
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			switch {
			case line == "  ---":
				begun++
			case line == "  ...":
				ended++
			case !strings.HasPrefix(line, "  ") && !points.MatchString(line):
				t.Errorf("a line of TAP is %q", line)
			}
		}
		if begun != 3 || ended != 3 {
			t.Errorf("%d blocks begin and %d end:\n%s", begun, ended, &b)
		}
		b.Reset()
		if err := WriteJUnit(&b, run, summaries); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Suites []struct {
				Cases []struct {
					Failure *struct{} `xml:"failure"`
					Skipped *struct{} `xml:"skipped"`
				} `xml:"testcase"`
			} `xml:"testsuite"`
		}
		elements, d := 0, xml.NewDecoder(bytes.NewReader(b.Bytes()))
		for {
			token, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := token.(xml.StartElement); ok {
				elements++
			}
		}
		if err := xml.Unmarshal(b.Bytes(), &got); err != nil || len(got.Suites) != 1 ||
			len(got.Suites[0].Cases) != 3 || elements != 14 {
			t.Errorf("%v, %d elements: %s", err, elements, &b)
		}
	})
}

// TestWorstVerdict: of a target that was run again and again the worst counts, with
// the first result of that verdict, whatever the order.
func TestWorstVerdict(t *testing.T) {
	for range 200 {
		verdicts := make([]matrix.Verdict, 1+rand.IntN(6))
		want := matrix.Pass
		s := NewStats([]string{"a"})
		first := map[matrix.Verdict]uint64{}
		for i := range verdicts {
			v := severity[rand.IntN(len(severity))]
			verdicts[i] = v
			if worse(v, want) > 0 {
				want = v
			}
			if first[v] == 0 {
				first[v] = uint64(i + 1)
			}
			s.Add(matrix.Result{Name: "a", Verdict: v, Seconds: 0.001})
		}
		o := s.Summaries(Run{})[0]
		if want == matrix.Pass {
			first[want] = 0
		}
		if o.Verdict != want || o.Run != first[want] || o.Runs != uint64(len(verdicts)) {
			t.Fatalf("%v: %+v, want %s of run %d", verdicts, o, want, first[want])
		}
		if matrix.ExitStatus(want) != s.ExitStatus() && !slices.Contains(verdicts, matrix.Error) {
			t.Fatalf("%v: %s has not the run's exit status", verdicts, want)
		}
	}
	for _, v := range matrix.Verdicts {
		if !slices.Contains(severity, v) {
			t.Errorf("%s has no severity", v)
		}
	}
}
