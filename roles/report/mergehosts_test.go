package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/explain"
)

// textOf is what a run on a host of its own writes: the first of the targets has the verdict.
func textOf(t testing.TB, kernel string, started time.Time, verdict matrix.Verdict, targets ...string) string {
	t.Helper()
	run := Run{Kernel: kernel, System: "linux/amd64", Version: "v1.2", Started: started, Seconds: 0.25}
	var results []matrix.Result
	for i, name := range targets {
		r := matrix.Result{Name: name, Verdict: matrix.Pass, Seconds: 0.004}
		if i == 0 && verdict != matrix.Pass {
			r.Verdict, r.Reason, r.Detail = verdict, matrix.NotDelivered, "remote server: nothing arrived"
			r.Explanation = &explain.Explanation{Cause: "no-policy-rule", Likely: "no policy rule is there",
				Check: "ip rule", Mend: "ip rule add fwmark 1 lookup 100"}
		}
		results = append(results, r)
	}
	var b bytes.Buffer
	if err := WriteJSON(&b, run, results); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var (
	monday  = time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC)
	tuesday = monday.Add(24 * time.Hour)
)

const (
	doctorBad = `{"problems":[{"severity":"bad","cause":"dropped","what":"clients get no answer",
		"why":"table ip f chain input rule 1 drops it","check":"nft list chain ip f input",
		"fix":"nft insert rule ip f input meta mark 1 accept"}],"flows":[],"notes":["not in the twin: XDP"]}`
	doctorWarn = `{"problems":[{"severity":"warn","cause":"listener-reachable","what":"clients reach the proxy's port"}]}`
	doctorGood = `{"problems":[],"flows":[]}`
	doctorBSD  = `{"findings":[{"level":"ok","about":"rule 1"},{"level":"bad","about":"rule 2","cause":"no-listener",
		"likely":"nothing listens at 127.0.0.1:8080","check":"netstat -an","mend":"start the proxy"}],"unseen":["table <x>"]}`
)

// fleetFrom merges files, each a name and its content, and returns the errors of those that can't
// be read.
func fleetFrom(files ...string) (*Fleet, []error) {
	var names []string
	for i := 0; i < len(files); i += 2 {
		names = append(names, files[i])
	}
	f := NewFleet("v1.3", names)
	var errs []error
	for i := 0; i < len(files); i += 2 {
		var err error
		if files[i+1] == "" {
			err = f.Add(files[i], nil, &fs.PathError{Op: "open", Path: files[i], Err: fs.ErrNotExist})
		} else {
			err = f.Add(files[i], strings.NewReader(files[i+1]), nil)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return f, errs
}

func fleetText(t testing.TB, f *Fleet) string {
	t.Helper()
	var b bytes.Buffer
	if err := f.WriteText(&b, Style{Terminal: true, Width: 100}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// formats are all files that a fleet is written to, by the end of their names.
func formats(t testing.TB, f *Fleet) map[string]string {
	t.Helper()
	all := map[string]string{"txt": fleetText(t, f)}
	for end, flag := range map[string]string{"json": "json", "tap": "tap", "xml": "junit", "html": HTMLFlag} {
		var b bytes.Buffer
		if err := f.Write(&b, flag); err != nil {
			t.Fatal(err)
		}
		all[end] = b.String()
	}
	// The style sheet is not this test's.
	before, rest, _ := strings.Cut(all["html"], "<style>")
	_, after, _ := strings.Cut(rest, "</style>")
	if i := strings.Index(before, "sha256-"); i >= 0 {
		before = before[:i] + before[i+strings.Index(before[i:], "=")+1:]
	}
	all["html"] = before + after
	return all
}

// few are three hosts of several kinds of files; many are 14, one of which differs from its kernel.
func few(t testing.TB) *Fleet {
	counted := `{"run":{"kernel":"Linux 6.1.0","system":"linux/amd64","version":"v1.2","started":"2026-11-02T03:04:05Z",
		"seconds":3,"cells":40,"cells_per_second":13},"targets":[{"name":"inet-args-tcp-to","runs":40,"passes":38,
		"verdicts":{"FAIL":2,"PASS":38},"seconds":{"p50":0.004,"p95":0.006,"p99":0.007,"max":0.01},"not_passed":[
		{"run":7,"verdict":"FAIL","reason":"not-delivered","detail":"remote server: nothing arrived"}]}]}`
	f, _ := fleetFrom("web1.json",
		textOf(t, "Linux 6.12.9", monday, matrix.Pass, "inet-args-tcp-to", "inet-args-udp-to"),
		"web1-doctor.json", doctorWarn, "web2.json", counted, "bsd.doctor.json", doctorBSD, "web3.json", "")
	return f
}

func many(t testing.TB, at time.Time, kernel string) *Fleet {
	var files []string
	for i := range 14 {
		v := matrix.Pass
		if i == 5 && at == tuesday {
			v = matrix.Fail
		}
		k := kernel
		if i >= 10 {
			k = "Linux 6.1.0"
		}
		files = append(files, fmt.Sprintf("web%d.json", i), textOf(t, k, at, v, "inet-args-tcp-to", "inet-args-udp-to"))
	}
	f, errs := fleetFrom(files...)
	if errs != nil {
		t.Fatal(errs)
	}
	return f
}

// TestMergeTwice: of two runs of a host the later counts, whatever the order of the files.
func TestMergeTwice(t *testing.T) {
	old := textOf(t, "Linux 6.12.8", monday, matrix.Fail, "a", "b")
	of := func(kernel string, v matrix.Verdict, targets ...string) string {
		return textOf(t, kernel, tuesday, v, targets...)
	}
	for _, c := range []struct {
		name  string
		later string
		want  string // verdicts, by target
	}{
		{"another kernel", of("Linux 6.12.9", matrix.Pass, "a"), "a PASS"},
		{"the same kernel", of("Linux 6.12.8", matrix.Pass, "a"), "a PASS, b PASS"},
		{"the same kernel, another target", of("Linux 6.12.8", matrix.Pass, "c"), "c PASS, a FAIL, b PASS"},
	} {
		for _, files := range [][]string{
			{"web1.json", old, "web1/run.json", c.later}, {"web1.json", c.later, "./web1-run.json", old},
		} {
			f, errs := fleetFrom(append(files, "web2.json", old, "web3.json", old)...)
			if errs != nil || len(f.hosts) != 3 || len(f.notes) != 1 {
				t.Fatalf("%s: %v, %d hosts, notes: %q", c.name, errs, len(f.hosts), f.notes)
			}
			var got []string
			for _, o := range f.hosts[0].summaries {
				got = append(got, o.Name+" "+string(o.Verdict))
			}
			if strings.Join(got, ", ") != c.want {
				t.Errorf("%s: %q, not %q", c.name, got, c.want)
			}
		}
	}
}

// TestMergeNames: what distinguishes the files' paths names the hosts.
func TestMergeNames(t *testing.T) {
	one := textOf(t, "Linux 6.12.9", monday, matrix.Pass, "a")
	for _, c := range []struct{ files, want string }{
		{"web1.json web2.json", "web1 web2"},
		{"r/web1/run.json r/web2/run.json r/web1/doctor.json", "web1 web2"},
		{"web1.json web1-doctor.json", "web1"},
		{"web1.run.json", "web1"},
		{"a/results.json b/results.json", "a b"},
		{"-", "stdin"},
		{"run.json", "run.json"},
		{"a/x.json b/x.json b/y.json", "a-x b-x y"},
		{"a/x.json a/y.json b/x.json c/x.json", "a-x a-y b c"},
		{"monday/web1.json monday/web2.json tuesday/web1.json tuesday/web2.json",
			"monday-web1 monday-web2 tuesday-web1 tuesday-web2"},
		{"b/x-doctor.json a/x.json b/x.json b/y.json", "b-x a-x y"},
		{"r/a/x.json s/a/x.json t/y.json a-x.json", "a-x a-x-2 t a-x-3"},
		{"web1.json old/web1.json web2.json", "web1 old-web1 web2"},
	} {
		var files []string
		for file := range strings.FieldsSeq(c.files) {
			text := one
			if strings.Contains(file, "doctor") {
				text = doctorGood
			}
			files = append(files, file, text)
		}
		f, errs := fleetFrom(files...)
		var names []string
		for _, h := range f.hosts {
			names = append(names, h.Name)
		}
		if got := strings.Join(names, " "); got != c.want || errs != nil {
			t.Errorf("%s: hosts %q, not %q; %v", c.files, got, c.want, errs)
		}
	}
}

// TestMergeDoctorTwice: what doctor found is told once where its file and a report that has it are
// merged.
func TestMergeDoctorTwice(t *testing.T) {
	f, _ := fleetFrom("web1-doctor.json", doctorBad)
	again, errs := fleetFrom("last.json", formats(t, f)["json"], "web1-doctor.json", doctorBad)
	d := again.hosts[0].Doctor
	if len(again.hosts) != 1 || errs != nil || len(d.Problems) != 1 || len(d.Notes) != 1 {
		t.Errorf("%d hosts, %v, %+v", len(again.hosts), errs, d)
	}
	again, _ = fleetFrom("web1-doctor.json", doctorBad, "web1/doctor.json", doctorWarn)
	if d = again.hosts[0].Doctor; len(d.Problems) != 2 {
		t.Errorf("of two problems there are %+v", d.Problems)
	}
}

// TestMergeError: a file can say why there is no report of a host.
func TestMergeError(t *testing.T) {
	f, errs := fleetFrom("web1.json", textOf(t, "k", monday, matrix.Pass, "a"),
		"web2.json", `{"error":"no route to host"}`)
	if len(errs) != 1 || errs[0].Error() != "web2.json: no route to host" || f.ExitStatus() != 2 {
		t.Errorf("status %d, %v", f.ExitStatus(), errs)
	}
	for format, want := range map[string]string{
		"txt":  "1 target on 2 hosts: 1 PASS in 250 ms; 1 host lacks results\n",
		"html": `href="#beside" aria-label="1 host lacks results"`,
	} {
		if text := formats(t, f)[format]; !strings.Contains(text, want) || !strings.Contains(text, "no route to host") {
			t.Errorf("%s lacks %q:\n%s", format, want, text)
		}
	}
}

// TestMergeDoctors: of files of doctor's alone the totals say what it found, and not of no target.
func TestMergeDoctors(t *testing.T) {
	f, _ := fleetFrom("web1-doctor.json", doctorGood, "web2-doctor.json", doctorBad, "web3-doctor.json", "")
	all := formats(t, f)
	const want = "web1: doctor found no problem\nweb2: doctor found 1 problem\nweb3: no results\n" +
		"3 hosts; 1 host lacks results\n"
	if !strings.Contains(all["txt"], want) || strings.Contains(all["html"], "0001-01-01") {
		t.Errorf("%s\n%s", all["txt"], all["html"])
	}
}

// TestMergeFolded: links to many hosts are folded, those to a few are not.
func TestMergeFolded(t *testing.T) {
	for name, f := range map[string]*Fleet{"few": few(t), "many": many(t, tuesday, "Linux 6.12.9")} {
		page := formats(t, f)["html"]
		_, hosts, _ := strings.Cut(page, ">The hosts</h2>")
		before, _, _ := strings.Cut(hosts, `href="#host1"`)
		if got := strings.Contains(before, "<details"); got != (name == "many") {
			t.Errorf("%s: folded %v: %s", name, got, before)
		}
	}
}

// TestMergeCards: each host has one card that its links lead to, however many hosts there are.
func TestMergeCards(t *testing.T) {
	for name, f := range map[string]*Fleet{"few": few(t), "many": many(t, tuesday, "Linux 6.12.9")} {
		page := formats(t, f)["html"]
		for i, h := range f.hosts {
			id := fmt.Sprintf("host%d", i+1)
			if n := strings.Count(page, `id="`+id+`"`); n != 1 {
				t.Errorf("%s: %d cards of %s", name, n, h.Name)
			}
			if !strings.Contains(page, `href="#`+id+`"`) {
				t.Errorf("%s: no link opens the card of %s", name, h.Name)
			}
		}
	}
}

// FuzzMerge: whatever is in the files, the reports can be written, and read again.
func FuzzMerge(f *testing.F) {
	for _, text := range []string{doctorBad, doctorBSD,
		formats(f, few(f))["json"], formats(f, many(f, tuesday, "k"))["json"],
		textOf(f, "k", monday, matrix.Fail, "a")} {
		f.Add([]byte(text), []byte(doctorGood))
	}
	two := fleetOf(f, []mergeFile{fileOf(f, "a.json", oldKernel, 0, nil, filtered("nft")),
		fileOf(f, "a-run.json", oldKernel, 0, nil, filtered("xt"))})
	f.Add(fileOf(f, "a.json", oldKernel, 0, passes(args26[:1]), filtered("nft")).text, written(f, two, "json"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		fleet, _ := fleetFrom("a.json", string(a)+" ", "b.json", string(b)+" ")
		fleet.Problems()
		texts := formats(t, fleet)
		if !json.Valid([]byte(texts["json"])) {
			t.Errorf("no JSON: %s", texts["json"])
		}
		if _, err := ReadJSON(strings.NewReader(texts["json"])); err != nil && len(fleet.hosts) > 0 {
			t.Errorf("it can't be read again: %v\n%s", err, texts["json"])
		}
	})
}
