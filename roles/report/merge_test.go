package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/roles/lab/labtest"
)

// mergeFile is a file that is merged.
type mergeFile struct {
	name string
	text []byte
	err  error // why it can't be opened
}

// wrote is what a report's writer writes.
func wrote(t testing.TB, write func(*bytes.Buffer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// fileOf is the file of a run of the first targets of args26, some days after the others.
func fileOf(t testing.TB, name, kernel string, days int, results []matrix.Result, change func(*Run)) mergeFile {
	run := with(run26, func(r *Run) {
		r.Kernel, r.Started, r.Targets = kernel, r.Started.AddDate(0, 0, days), args26[:4]
		if change != nil {
			change(r)
		}
	})
	return mergeFile{name: name, text: wrote(t, func(b *bytes.Buffer) error { return WriteJSON(b, run, results) })}
}

// failing are passes, of which one is a FAIL, or an ERROR.
func failing(at int, v matrix.Verdict) []matrix.Result {
	results := passes(args26[:4])
	results[at].Verdict, results[at].Reason, results[at].Detail = v, matrix.NotDelivered, "The server accepted nothing."
	return results
}

// fromFile is a file of testdata.
func fromFile(t testing.TB, name, file string) mergeFile {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return mergeFile{name: name, text: content}
}

// withFilter has a run say which filter it used.
func filtered(filter string) func(*Run) {
	return func(r *Run) {
		r.Hosts = []Machine{{Name: "local", Kernel: r.Kernel, System: r.System},
			{Name: "remote", Kernel: r.Kernel, System: r.System, Filter: filter}}
	}
}

const oldKernel, newKernel = "Linux 6.12.9", "Linux 6.13.1"

// eachKind has a file of each kind: of a run, of one with -count, of two hosts, of doctor on Linux
// and with pf, of merge, and one that ends in the middle.
func eachKind(t testing.TB) []mergeFile {
	counted := NewStats(args26[:4])
	for round := range 30 {
		for i, r := range passes(args26[:4]) {
			if i == 2 && round%10 == 3 {
				r.Verdict, r.Reason, r.Detail = matrix.Fail, matrix.NotDelivered,
					fmt.Sprintf("It failed in round %d.", round)
			}
			counted.Add(r)
		}
	}
	run, results := several(args26[:4])
	var two []matrix.Result
	for _, r := range results {
		if !strings.HasPrefix(r.Name, "gone/") {
			two = append(two, r)
		}
	}
	run.Tested = run.Tested[:2]
	last := fleetOf(t, []mergeFile{fileOf(t, "mail.json", oldKernel, 0, passes(args26[:4]), nil)})
	plain := fileOf(t, "web1.json", newKernel, 1, explained()[:4], nil)
	return []mergeFile{
		plain,
		{name: "web2.json", text: wrote(t, func(b *bytes.Buffer) error { return counted.WriteJSON(b, run26) })},
		{name: "pair.json", text: wrote(t, func(b *bytes.Buffer) error { return WriteJSON(b, run, two) })},
		fromFile(t, "web1-doctor.json", "doctor-linux.json"),
		fromFile(t, "openbsd77-doctor.json", "doctor-pf.json"),
		{name: "monday.json", text: wrote(t, func(b *bytes.Buffer) error { return last.WriteJSON(b) })},
		{name: "cut.json", text: plain.text[:len(plain.text)/2]},
	}
}

// three are three hosts with a new kernel, of which one regressed.
func three(t testing.TB) []mergeFile {
	return []mergeFile{
		fileOf(t, "web1.json", newKernel, 1, passes(args26[:4]), nil),
		fileOf(t, "web2.json", newKernel, 1, failing(1, matrix.Fail), nil),
		fileOf(t, "web3.json", oldKernel, 1, passes(args26[:4]), nil),
	}
}

// fourteen are hosts with three kernels: two differ from the rest of theirs, one was interrupted,
// one was run twice, and one is not there.
func fourteen(t testing.TB) (files []mergeFile) {
	for i := 1; i <= 12; i++ {
		kernel, results, change := newKernel, passes(args26[:4]), (func(*Run))(nil)
		switch i {
		case 4:
			results = failing(2, matrix.Fail)
		case 5:
			results = failing(0, matrix.Skip)
		case 9, 10:
			kernel = oldKernel
		case 11:
			kernel, change = oldKernel, func(r *Run) { r.Interrupted = true }
			results = results[:2]
		case 12:
			kernel, change = "FreeBSD 14.3", func(r *Run) { r.System = "freebsd/amd64" }
		}
		files = append(files, fileOf(t, fmt.Sprintf("web%d.json", i), kernel, 1, results, change))
	}
	return append(files,
		fileOf(t, "web1-run.json", newKernel, 2, passes(args26[:3]), nil),
		mergeFile{name: "web13.json", err: &fs.PathError{Op: "open", Path: "web13.json", Err: fs.ErrNotExist}},
		fromFile(t, "web14-doctor.json", "doctor-linux.json"))
}

// lastTime is the report of a fleet before its kernels were new.
func lastTime(t testing.TB) *Past {
	var files []mergeFile
	for i := 1; i <= 12; i++ {
		results := passes(args26[:4])
		if i == 3 {
			results = failing(3, matrix.Fail)
		}
		name := fmt.Sprintf("web%d.json", i)
		if i == 6 { // web6 is new now
			name = "retired.json"
		}
		files = append(files, fileOf(t, name, oldKernel, 0, results, nil))
	}
	f := fleetOf(t, files)
	p, err := ReadJSON(bytes.NewReader(wrote(t, func(b *bytes.Buffer) error { return f.WriteJSON(b) })))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fleetOf merges files. Those that can't be read are part of it.
func fleetOf(t testing.TB, files []mergeFile) *Fleet {
	f, _ := mergeAll(files)
	return f
}

func mergeAll(files []mergeFile) (f *Fleet, errs []error) {
	var names []string
	for _, g := range files {
		names = append(names, g.name)
	}
	f = NewFleet("v1.3", names)
	for _, g := range files {
		if err := f.Add(g.name, bytes.NewReader(g.text), g.err); err != nil {
			errs = append(errs, err)
		}
	}
	return f, append(errs, f.Problems()...)
}

// fleets are those with golden files.
func fleets(t testing.TB) map[string]*Fleet {
	all := map[string]*Fleet{
		"kinds": fleetOf(t, eachKind(t)), "three": fleetOf(t, three(t)), "fourteen": fleetOf(t, fourteen(t)),
		"three-since": fleetOf(t, three(t)), "fourteen-since": fleetOf(t, fourteen(t)),
	}
	for name, f := range all {
		if strings.HasSuffix(name, "-since") {
			f.Against("monday.json", lastTime(t))
		}
	}
	return all
}

// written is the fleet in a format.
func written(t testing.TB, f *Fleet, format string) []byte {
	t.Helper()
	return wrote(t, func(b *bytes.Buffer) error {
		if format == "txt" {
			return f.WriteText(b, pipe)
		}
		return f.Write(b, format)
	})
}

// TestMergeGolden: a fleet in every format.
func TestMergeGolden(t *testing.T) {
	for name, f := range fleets(t) {
		for format, ext := range map[string]string{"txt": "txt", "json": "json", "html": "html", "tap": "tap",
			"junit": "junit.xml"} {
			got := written(t, f, format)
			golden(t, "merge-"+name+"."+ext, got)
			assertClean(t, string(got))
		}
	}
}

// TestMergeAgain: a merged report merges to the same.
func TestMergeAgain(t *testing.T) {
	for name, f := range fleets(t) {
		first := written(t, f, "json")
		again := written(t, fleetOf(t, []mergeFile{{name: "merged.json", text: first}}), "json")
		if name == "kinds" || name == "three" { // without notes and changes, which are not read
			if !bytes.Equal(first, again) {
				t.Errorf("%s:\n%s\nagain\n%s", name, first, again)
			}
			continue
		}
		if a, b := withoutKeys(t, first), withoutKeys(t, again); a != b {
			t.Errorf("%s:\n%s\nagain\n%s", name, a, b)
		}
	}
}

// withoutKeys is a report without what is not read.
func withoutKeys(t *testing.T, report []byte) string {
	t.Helper()
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(report, &keys); err != nil {
		t.Fatal(err)
	}
	delete(keys, "notes")
	delete(keys, "since")
	left, err := json.Marshal(keys)
	if err != nil || len(keys) != 4 {
		t.Fatalf("%v, keys %d", err, len(keys))
	}
	return string(left)
}

// TestMergeStatus: the exit status, the errors, and which hosts there are with how many targets.
func TestMergeStatus(t *testing.T) {
	good := func(name string, days int, results []matrix.Result, change func(*Run)) mergeFile {
		return fileOf(t, name, oldKernel, days, results, change)
	}
	p4 := passes(args26[:4])
	missing := func(name string) mergeFile {
		return mergeFile{name: name, err: &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}}
	}
	ok := good("web1.json", 0, p4, nil)
	doctor := func(name, severity string) mergeFile {
		return mergeFile{name: name, text: fmt.Appendf(nil,
			`{"problems":[{"severity":%q,"cause":"c","what":"w","why":"y"}]}`,
			severity)}
	}
	merged := func(files ...mergeFile) []byte { return written(t, fleetOf(t, files), "json") }
	for _, c := range []struct {
		name   string
		files  []mergeFile
		status int
		errs   string // joined by newlines
		hosts  string // with how many targets
		notes  int
	}{
		{"all pass", []mergeFile{ok, good("web2.json", 0, p4, nil)}, 0, "", "web1 4, web2 4", 0},
		{"skipped", []mergeFile{good("web1.json", 0, failing(1, matrix.Skip), nil)}, 0, "", "web1 4", 0},
		{"known to fail", []mergeFile{good("web1.json", 0, failing(1, matrix.XFail), nil)}, 0, "", "web1 4", 0},
		{"a FAIL", []mergeFile{ok, good("web2.json", 0, failing(1, matrix.Fail), nil)}, 1, "", "web1 4, web2 4", 0},
		{"an XPASS", []mergeFile{good("web1.json", 0, failing(1, matrix.XPass), nil)}, 1, "", "web1 4", 0},
		{"doctor bad", []mergeFile{ok, doctor("web1-doctor.json", "bad")}, 1, "", "web1 4", 0},
		{"doctor warns", []mergeFile{ok, doctor("web1-doctor.json", "warn")}, 0, "", "web1 4", 0},
		{"doctor alone", []mergeFile{doctor("web1/doctor.json", "bad")}, 1, "", "web1 0", 0},
		{"doctor of neither", []mergeFile{doctor("web1.json", "worse")}, 2,
			`web1.json: a problem of doctor's is "worse", neither bad nor warn`, "web1 0", 0},
		{"missing", []mergeFile{missing("web1.json"), good("web2.json", 0, p4, nil)}, 2,
			"web1.json: file does not exist", "web1 0, web2 4", 0},
		{"cut", []mergeFile{{name: "web1.json", text: ok.text[:len(ok.text)-40]}, good("web2.json", 0, p4, nil)}, 2,
			"web1.json: it is no JSON report: it ends in the middle", "web1 0, web2 4", 0},
		{"doctor could not look", []mergeFile{ok, {name: "web1-doctor.json",
			text: []byte(`{"findings":[],"unseen":["pf"],"error":"the rules could not be read"}`)}}, 2,
			"web1-doctor.json: doctor could not look: the rules could not be read", "web1 4", 0},
		{"empty", []mergeFile{{name: "web1.json"}}, 2, "web1.json: it is empty", "web1 0", 0},
		{"an ERROR", []mergeFile{ok, good("web2.json", 0, failing(1, matrix.Error), nil)}, 2,
			"web2.json: web2: 1 target could not be run: not-delivered: The server accepted nothing.", "web1 4, web2 4", 0},
		{"interrupted", []mergeFile{good("web1.json", 0, p4[:1], func(r *Run) { r.Interrupted = true })}, 2,
			"web1.json: web1: the run was interrupted after 1 target", "web1 1", 0},
		{"not run", []mergeFile{good("web1.json", 0, nil, func(r *Run) { r.Skipped = "no remote host" })}, 2,
			"web1.json: web1: nothing was run: no remote host", "web1 0", 0},
		{"no target", []mergeFile{good("web1.json", 0, nil, nil)}, 2, "web1.json: web1: nothing was run", "web1 0", 0},
		{"two errors and a FAIL", []mergeFile{missing("web1.json"), {name: "web2.json", text: []byte("x")},
			good("web3.json", 0, failing(0, matrix.Fail), nil)}, 2,
			"web1.json: file does not exist\n" +
				"web2.json: it is no JSON report: invalid character 'x' looking for beginning of value",
			"web1 0, web2 0, web3 4", 0},

		{"standard input", []mergeFile{{name: "-", text: ok.text}}, 0, "", "stdin 4", 0},
		{"folders", []mergeFile{good("web1/run.json", 0, p4, nil), good("web2/run.json", 0, p4, nil),
			doctor("web2/doctor.json", "warn")}, 0, "", "web1 4, web2 4", 0},
		{"folders with other names", []mergeFile{good("a/x.json", 0, p4, nil), good("b/x.json", 0, p4, nil)}, 0, "",
			"a 4, b 4", 0},
		{"one folder", []mergeFile{good("d/web1-results.json", 0, p4, nil),
			good("d/web2.pfdivert.json", 0, p4, nil)}, 0, "",
			"web1 4, web2 4", 0},
		{"of no name", []mergeFile{good("run.json", 0, p4, nil), good("./x/run.json", 0, p4, nil)}, 0, "",
			"run.json 4, x 4", 0},
		{"a folder", []mergeFile{missing("/")}, 2, "/: file does not exist", "_ 0", 0},
		{"bytes that are no text", []mergeFile{good("a\xff.json", 0, p4, nil), good("é"+strings.Repeat("é", 200), 0, p4,
			nil)}, 0, "", "a\ufffd 4, " + strings.Repeat("é", 128) + " 4", 0},

		{"the later", []mergeFile{good("web1.json", 2, p4, nil),
			good("web1-run.json", 1, failing(1, matrix.Fail), nil)}, 0,
			"", "web1 4", 1},
		{"the later, the other way", []mergeFile{good("web1-run.json", 1, p4, nil),
			good("web1.json", 2, failing(1, matrix.Fail),
				nil)}, 1, "", "web1 4", 1},
		{"the later with fewer targets", []mergeFile{good("web1.json", 1, failing(3, matrix.Fail), nil),
			good("web1-run.json", 2, p4[:3], nil)}, 1, "", "web1 4", 1},
		{"interrupted, and then some of its targets", []mergeFile{good("web1.json", 1, p4[:3],
			func(r *Run) { r.Interrupted = true }), good("web1-run.json", 2, p4[:2], nil)}, 2,
			"web1.json, web1-run.json: web1: the run was interrupted after 3 targets", "web1 3", 1},
		{"interrupted, and then all", []mergeFile{good("web1.json", 1, p4[:3], func(r *Run) { r.Interrupted = true }),
			good("web1-run.json", 2, p4, nil)}, 0, "", "web1 4", 1},
		{"another kernel", []mergeFile{fileOf(t, "web1.json", oldKernel, 1, failing(3, matrix.Fail), nil),
			fileOf(t, "web1-run.json", newKernel, 2, p4[:3], nil)}, 0, "", "web1 3", 1},
		{"another filter", []mergeFile{good("web1.json", 0, p4, filtered("nft")),
			good("web1-run.json", 0, p4[:3], filtered("xt"))}, 0, "", "web1 4, web1-xt 3", 0},
		{"the filter, and then none", []mergeFile{good("web1.json", 0, p4, filtered("xt")),
			good("web1-run.json", 0, p4[:3], nil)}, 0, "", "web1 4, web1-default 3", 0},
		{"another filter after a merged report", []mergeFile{{name: "m.json", text: merged(
			good("web1.json", 0, p4, filtered("nft")), good("web1-run.json", 0, p4[:3], filtered("xt")))},
			good("web1.json", 1, p4, filtered("xt"))}, 0, "", "web1 4, web1-xt 4", 1},
		{"a filter that is none", []mergeFile{good("web1.json", 0, p4, nil),
			good("web1-run.json", 0, p4, filtered(strings.Repeat("x", 300))),
			good("web2.json", 0, p4, filtered("a/b"))}, 2,
			fmt.Sprintf("web1-run.json: the run: %q is no filter\nweb2.json: the run: \"a/b\" is no filter", strings.Repeat("x", 300)),
			"web1 4, web2 0", 0},
		{"a name that is taken", []mergeFile{good("web1.json", 0, p4, filtered("nft")),
			good("web1-xt.json", 0, p4[:2], filtered("nft")), good("web1-run.json", 0, p4[:3], filtered("xt"))}, 0, "",
			"web1 4, web1-xt 2, web1-xt-2 3", 0},
		{"the same file twice", []mergeFile{ok, ok}, 0, "", "web1 4", 0},
		{"the same missing file twice", []mergeFile{missing("web1.json"), missing("web1.json")}, 2,
			"web1.json: file does not exist\nweb1.json: file does not exist", "web1 0", 0},
		{"a host that is there again", []mergeFile{{name: "m.json", text: merged(missing("web1.json"))},
			good("web1-run.json", 0, p4, nil)}, 0, "", "web1 4", 0},
		{"a host that is still away", []mergeFile{{name: "m.json", text: merged(missing("web1.json"))}}, 2,
			"web1.json: web1: file does not exist", "web1 0", 0},
	} {
		f, errs := mergeAll(c.files)
		var hosts []string
		for _, h := range f.hosts {
			hosts = append(hosts, fmt.Sprintf("%s %d", h.Name, len(h.summaries)))
		}
		said := ""
		if err := errors.Join(errs...); err != nil {
			said = err.Error()
		}
		if got := f.ExitStatus(); got != c.status || said != c.errs || strings.Join(hosts, ", ") != c.hosts ||
			len(f.notes) != c.notes {
			t.Errorf("%s: exit status %d, want %d; hosts %q, want %q\n%s\nwant\n%s\nnotes %q", c.name, got, c.status,
				hosts, c.hosts, said, c.errs, f.notes)
		}
		assertMergeable(t, f)
	}
}

// TestMergeMost: the largest group is most of a kernel, also if others come first, and of two of
// one size that with the better verdicts.
func TestMergeMost(t *testing.T) {
	for first, want := range map[int]string{
		1: "14 hosts in 2 groups; 1 host differs from the rest of its kernel: web1",
		7: "14 hosts in 2 groups; 7 hosts differ from the rest of their kernel: web1, web2, web3, web4, web5, web6, web7",
		8: "14 hosts in 2 groups; 6 hosts differ from the rest of their kernel: web9, web10, web11, web12, web13, web14",
	} {
		var files []mergeFile
		for i := 1; i <= 14; i++ {
			results := passes(args26[:4])
			if i <= first {
				results = failing(2, matrix.Fail)
			}
			files = append(files, fileOf(t, fmt.Sprintf("web%d.json", i), oldKernel, 0, results, nil))
		}
		f := fleetOf(t, files)
		if got := headline(f.hosts, f.groups()); got != want {
			t.Errorf("%d hosts that fail: %s", first, got)
		}
	}
}

// TestMergeRegressed: what regressed since the last time makes merge fail, even if it is no FAIL.
func TestMergeRegressed(t *testing.T) {
	last := past(t, func(b *bytes.Buffer) error {
		return WriteJSON(b, with(run26, func(r *Run) { r.Targets = args26[:4] }), passes(args26[:4]))
	})
	for v, want := range map[matrix.Verdict]int{matrix.Pass: 0, matrix.Skip: 1} {
		f := fleetOf(t, []mergeFile{fileOf(t, "web1.json", newKernel, 1, failing(1, v), nil)})
		if f.Against("last.json", last); f.ExitStatus() != want {
			t.Errorf("PASS -> %s: exit status %d, want %d", v, f.ExitStatus(), want)
		}
	}
}

// assertMergeable fails unless a fleet can be written in all formats, its JSON be merged again to
// the same, and its JUnit has no two cases of one name in a suite.
func assertMergeable(t *testing.T, f *Fleet) {
	t.Helper()
	for _, format := range []string{"txt", "html", "tap"} {
		assertClean(t, string(written(t, f, format)))
	}
	first := written(t, f, "json")
	again, errs := mergeAll([]mergeFile{{name: "merged.json", text: first}})
	second := written(t, again, "json")
	if f.notes == nil && f.since == nil && !bytes.Equal(first, second) || again.ExitStatus() != f.ExitStatus() ||
		len(again.hosts) != len(f.hosts) {
		t.Errorf("merged again it is another: %v\n%s\nagain\n%s", errs, first, second)
	}
	var junit struct {
		Suites []struct {
			Cases []struct {
				Name string `xml:"name,attr"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(written(t, f, "junit"), &junit); err != nil || len(junit.Suites) != len(f.hosts) {
		t.Errorf("%v, %d suites of %d hosts", err, len(junit.Suites), len(f.hosts))
	}
	for _, suite := range junit.Suites {
		names := map[string]bool{}
		for _, c := range suite.Cases {
			if names[c.Name] {
				t.Errorf("two cases are named %q", c.Name)
			}
			names[c.Name] = true
		}
	}
}

// TestMergeConsumers: xmllint finds a fleet's JUnit to be as the schema says, and prove fails as
// merge does.
func TestMergeConsumers(t *testing.T) {
	all := fleets(t)
	all["passed"] = fleetOf(t, three(t)[:1])
	t.Run("xmllint", func(t *testing.T) {
		xmllint := labtest.Program(t, "xmllint")
		for name, f := range all {
			cmd := exec.Command(xmllint, "--noout", "--nonet", "--schema", "testdata/junit.xsd", "-")
			cmd.Stdin = bytes.NewReader(written(t, f, "junit"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	})
	t.Run("prove", func(t *testing.T) {
		prove := labtest.Program(t, "prove")
		for name, f := range all {
			tap := written(t, f, "tap")
			failed := len(regexp.MustCompile(`(?m)^not ok .*$`).FindAll(tap, -1)) -
				len(regexp.MustCompile(`(?m)^not ok .* # TODO .*$`).FindAll(tap, -1))
			file := filepath.Join(t.TempDir(), "merged.tap")
			// Debian 12's prove knows no version after 13.
			tap = bytes.Replace(tap, []byte("version 14"), []byte("version 13"), 1)
			if err := os.WriteFile(file, tap, 0o666); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(prove, "--exec", "cat", file).CombinedOutput()
			if (err == nil) != (name == "passed") || (f.ExitStatus() == 0) != (name == "passed") ||
				strings.Contains(string(out), "Parse errors") {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			if failed > 0 && !strings.Contains(string(out), fmt.Sprintf("Failed %d/", failed)) &&
				!strings.Contains(string(out), "Bailout called") {
				t.Errorf("%s: want %d failed:\n%s", name, failed, out)
			}
		}
	})
}

// TestMergeBrowser: in a browser, wide and narrow, a fleet's page is as wide as the window, asks
// for nothing, and each link to a host opens its card.
func TestMergeBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	b := startBrowser(t)
	dir := t.TempDir()
	all := fleets(t)
	var files []mergeFile
	for i := range 1000 {
		results := passes(args26[:4])
		if i%100 == 7 {
			results = failing(i/100%4, matrix.Fail)
		}
		name, kernel := fmt.Sprintf("web%d.json", i), fmt.Sprintf("Linux 6.%d.1", i%3)
		files = append(files, fileOf(t, name, kernel, i, results, nil))
	}
	all["thousand"] = fleetOf(t, files)
	for name, f := range all {
		file := filepath.Join(dir, name+".html")
		if err := os.WriteFile(file, written(t, f, "html"), 0o666); err != nil {
			t.Fatal(err)
		}
		for _, width := range []int{1280, 390} {
			t.Run(fmt.Sprint(name, " ", width), func(t *testing.T) {
				b.t = t
				b.open(file, width, 800, "light")
				b.is(fmt.Sprintf("document.documentElement.scrollWidth <= %d", width))
				b.is(fmt.Sprintf("document.querySelectorAll('section[id^=host]').length == %d", len(f.hosts)))
				// The cards are hidden, and each has a link.
				b.is("[...document.querySelectorAll('section[id^=host]')].every(e => e.offsetHeight == 0 &&" +
					" document.querySelector('a[href=\"#' + e.id + '\"]').textContent == e.querySelector('h3').textContent)")
				b.is("[...document.querySelectorAll('a')].every(a => document.getElementById(a.hash.slice(1)))")
				last := fmt.Sprintf("#host%d", len(f.hosts))
				b.eval(fmt.Sprintf("[...document.querySelectorAll(%q)].at(-1).id = 'last'", `a[href="`+last+`"]`))
				if len(f.hosts) > maxColumns {
					b.is("document.querySelector('#last').checkVisibility() == false")
					b.eval("document.querySelector('#last').closest('details').querySelector('summary').id = 'fold'")
					b.click("#fold")
				}
				b.click("#last")
				b.is(fmt.Sprintf("location.hash == %q", last))
				b.is(fmt.Sprintf("(r => r.height > 40 && r.top >= 0 && r.top < innerHeight)(document.querySelector(%q)"+
					".getBoundingClientRect())", last))
				b.is("[...document.querySelectorAll('section[id^=host]')].filter(e => e.offsetHeight > 0).length == 1")
				b.is(fmt.Sprintf("document.documentElement.scrollWidth <= %d", width))
				b.eval("document.querySelectorAll('details').forEach(d => d.open = true)")
				b.eval("document.querySelectorAll('.quiet').forEach(s => s.classList.remove('quiet'))")
				b.is(fmt.Sprintf("document.documentElement.scrollWidth <= %d", width))
				b.legible()
				b.quiet(file)
				if *shots != "" {
					b.open(file, width, 800, "light")
					b.keep(fmt.Sprint("merge-", name, "-", width))
				}
			})
		}
	}
}
