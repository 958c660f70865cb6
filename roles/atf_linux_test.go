package roles

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/roles/lab/labtest"
)

// TestATFArgs: arguments as kyua writes them, and as people do.
func TestATFArgs(t *testing.T) {
	for text, want := range map[string]atfArgs{
		"-l":                          {list: true},
		"-l -vREMOTE_SSH=a -v x=y=z":  {list: true, vars: map[string]string{"REMOTE_SSH": "a", "x": "y=z"}},
		"-r/tmp/r -s/src inet-a:body": {result: "/tmp/r", target: "inet-a", part: "body"},
		"-r r inet-a:cleanup":         {result: "r", target: "inet-a", part: "cleanup"},
		"-- inet-a":                   {target: "inet-a"},
		"inet-a":                      {target: "inet-a"},
	} {
		if want.vars == nil {
			want.vars = map[string]string{}
		}
		if got, err := parseATF(strings.Fields(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "-r", "-v x inet-a", "-x inet-a", "a b", "-l a", "-lx"} {
		if got, err := parseATF(strings.Fields(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// TestCaseResult: one line for each verdict, with the exit status that kyua wants with it.
func TestCaseResult(t *testing.T) {
	for v, want := range map[matrix.Verdict]string{
		matrix.Pass: "0 passed", matrix.Skip: "0 skipped: r: a b", matrix.XFail: "0 expected_failure: r: a b",
		matrix.Fail: "1 failed: r: a b", matrix.Error: "1 broken: r: a b",
		matrix.XPass: "1 failed: it passes, and was known to fail: r: a b",
	} {
		line, status := caseResult(matrix.Result{Verdict: v, Reason: "r", Detail: "a\nb"})
		if got := strings.TrimSpace(string(rune('0'+status)) + " " + line); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

// TestListCases: each target and claim is a test case; root is asked for where it is needed.
func TestListCases(t *testing.T) {
	for _, root := range []bool{false, true} {
		var b bytes.Buffer
		if err := listCases(&b, root); err != nil {
			t.Fatal(err)
		}
		head, rest, _ := strings.Cut(b.String(), "\n\n")
		cases := strings.Split(rest, "\n\n")
		all := len(matrix.Targets()) + len(matrix.Claims())
		if head != `Content-Type: application/X-atf-tp; version="1"` || len(cases) != all {
			t.Errorf("%q, %d cases", head, len(cases))
		}
		for _, c := range cases {
			lines := strings.Split(strings.TrimSuffix(c, "\n"), "\n")
			if !strings.HasPrefix(lines[0], "ident: inet") || strings.Contains(c, "require.user: root") != root {
				t.Errorf("%q", c)
			}
			for _, line := range lines {
				if name, value, ok := strings.Cut(line, ": "); !ok || name == "" || value == "" {
					t.Errorf("%q is no property", line)
				}
			}
		}
	}
}

// TestKyua has kyua itself run three targets in a lab and read their results, which the Kyuafile
// leads it to.
func TestKyua(t *testing.T) {
	kyua := labtest.Program(t, "kyua")
	labtest.Need(t)
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../Kyuafile")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Kyuafile"), text, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, filepath.Join(dir, "pfdivert-atf")); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), kyua, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), asProgram+"=1", "HOME="+dir)
		out, err := cmd.CombinedOutput()
		t.Logf("kyua %s: %v\n%s", strings.Join(args, " "), err, out)
		return string(out)
	}
	if got := strings.Count(run("list"), "pfdivert-atf:inet"); got != len(matrix.Targets())+len(matrix.Claims()) {
		t.Errorf("%d test cases", got)
	}
	out := run("test", "pfdivert-atf:inet-args-udp-to", "pfdivert-atf:inet6-divert-rule-number")
	for _, want := range []string{"inet-args-udp-to  ->  passed", "inet6-divert-rule-number  ->  skipped:"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q", want)
		}
	}
	// A REMOTE_SSH of -v takes the place of the lab.
	out = run("-v", "test_suites.pfdivert.REMOTE_SSH=root@localhost", "test", "pfdivert-atf:inet-args-udp-to")
	if !strings.Contains(out, "inet-args-udp-to  ->  broken:") || !strings.Contains(out, "ADDR") {
		t.Error("the host of -v was not asked for")
	}
}
