package roles_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/roles/lab/labtest"
)

// readYAML reads a file of contrib, which has at most 30 lines.
func readYAML(t *testing.T, name string, to any) {
	t.Helper()
	text, err := os.ReadFile("../contrib/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 30 {
		t.Errorf("%s has %d lines, want 30 at most", name, n)
	}
	// BaseLoader has all scalars be text: "on" is none of YAML 1.2's booleans.
	cmd := exec.Command(labtest.Program(t, "python3"), "-c",
		"import json, sys, yaml; json.dump(yaml.load(sys.stdin, yaml.BaseLoader), sys.stdout)")
	cmd.Stdin = strings.NewReader(string(text))
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "No module named 'yaml'") {
		labtest.Lacks(t, "yaml", err)
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	if err := json.Unmarshal(out, to); err != nil {
		t.Fatal(err)
	}
}

// inFolder runs a shell's command in a folder, whose bin comes first in PATH.
func inFolder(dir string, env []string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "PATH="+dir+"/bin:"+os.Getenv("PATH")), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// stub writes a command for the bin of a folder.
func stub(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.MkdirAll(dir+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/bin/"+name, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// failing is a pfdivert that prints one result of each verdict, as a run does to a file.
const failing = `echo 'Linux 6.1 linux/amd64
PASS inet-args-tcp-to
FAIL inet-args-udp-to (not-delivered): remote server: nothing arrived
  cause: no-rule
XFAIL inet-args-rip-to (known): as known
XPASS inet-args-rip-reply
SKIP inet-args-icmp-to (no-feature): none
ERROR inet6-args-tcp-to (fence-lost): lost
6 targets: 1 PASS, 1 FAIL in 1 ms'; exit 2`

// TestGitHub runs the steps of contrib/github's workflow as a runner does, on this kernel and with
// a program whose targets fail.
func TestGitHub(t *testing.T) {
	labtest.Need(t)
	labtest.Root(t)
	labtest.Programs(t, "sudo", "bash")
	var w struct {
		On   []string
		Jobs map[string]struct {
			RunsOn string `json:"runs-on"`
			Steps  []struct {
				Name, Uses, Run, Shell, If string
				With                       map[string]string
			}
		}
	}
	readYAML(t, "github/pfdivert.yml", &w)
	exe := program(t)
	for _, c := range []struct{ name, summary, failed string }{
		{"passes", fmt.Sprintf(`^%[1]d targets: %[1]d PASS in .*\n$`, len(matrix.Targets())), ""},
		{"fails", `^6 targets: 1 PASS, 1 FAIL in 1 ms\n$`, "Run the targets"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.failed != "" {
				stub(t, dir, "pfdivert", failing)
				exe = dir + "/bin/pfdivert"
			}
			failed, kept := "", ""
			for _, step := range w.Jobs["run"].Steps {
				switch {
				case step.Uses != "":
					if !regexp.MustCompile(`^actions/[a-z-]+@v\d+$`).MatchString(step.Uses) {
						t.Errorf("uses %s", step.Uses)
					}
					kept = step.With["path"]
				case step.Run == "make": // what it builds
					if err := os.Symlink(exe, dir+"/pfdivert"); err != nil {
						t.Fatal(err)
					}
				case failed == "" || step.If == "always()":
					args := []string{"bash", "-e", "-c", step.Run}
					if step.Shell == "bash" {
						args = []string{"bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step.Run}
					}
					env := []string{"GITHUB_STEP_SUMMARY=" + dir + "/summary"}
					if out, err := inFolder(dir, env, args...); err != nil {
						failed = step.Name
						t.Logf("%s: %v\n%s", step.Name, err, out)
					}
				}
			}
			if failed != c.failed {
				t.Errorf("the step %q failed, want %q", failed, c.failed)
			}
			summary, err := os.ReadFile(dir + "/summary")
			if err != nil || !regexp.MustCompile(c.summary).Match(summary) {
				t.Errorf("summary %q, %v", summary, err)
			}
			for pattern := range strings.Lines(kept) {
				found, err := filepath.Glob(dir + "/" + strings.TrimSpace(pattern))
				if c.failed == "" && (err != nil || len(found) == 0) {
					t.Errorf("there is no %s to upload", pattern)
				}
			}
			if kept == "" {
				t.Error("nothing is uploaded")
			}
		})
	}
}

// TestLAVA runs the steps of contrib/lava's test definition as LAVA's script for a device does:
// with its parameters in front, by sh -e, and with the commands that LAVA puts there.
func TestLAVA(t *testing.T) {
	labtest.Need(t)
	var d struct {
		Metadata struct{ Format, Name string }
		Params   map[string]string
		Run      struct{ Steps []string }
	}
	readYAML(t, "lava/pfdivert.yaml", &d)
	if d.Metadata.Format != "Lava-Test Test Definition 1.0" || d.Metadata.Name != "pfdivert" {
		t.Errorf("metadata %+v", d.Metadata)
	}
	exe := program(t)
	for _, c := range []struct {
		name, program, signals string
		params                 map[string]string
	}{
		{"all verdicts", failing, "case inet-args-tcp-to --result pass\ncase inet-args-udp-to --result fail\n" +
			"case inet-args-rip-to --result pass\ncase inet-args-rip-reply --result fail\n" +
			"case inet-args-icmp-to --result skip\ncase inet6-args-tcp-to --result unknown\n", nil},
		{"could not start", "echo 'error: no lab' >&2; exit 2", "raise pfdivert could not run\n", nil},
		{"real", `exec ` + exe + ` "$@"`, "case inet-args-tcp-to --result pass\n",
			map[string]string{"RUN": "-parallel 1 inet-args-tcp-t?"}},
		{"downloaded", "exit 1", "case inet6-args-tcp-to --result pass\n",
			map[string]string{"URL": exe, "RUN": "inet6-args-tcp-to"}},
		{"not downloaded", "exit 1", "raise pfdivert could not be downloaded\n",
			map[string]string{"URL": "/nowhere"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			stub(t, dir, "pfdivert", c.program)
			stub(t, dir, "lava-test-case", `echo "case $*" >>signals`)
			stub(t, dir, "lava-test-raise", `echo "raise $*" >>signals; kill $PPID`) // ends the job
			stub(t, dir, "wget", `cp "$4" "$3"`)                                     // wget -q -O FILE URL
			// A file that patterns of the shell would match.
			if err := os.WriteFile(dir+"/inet-args-tcp-tX", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			text := ""
			for name, value := range d.Params {
				text += fmt.Sprintf("%s='%s'\n", name, value)
			}
			for name, value := range c.params {
				if _, ok := d.Params[name]; !ok {
					t.Errorf("no parameter %s", name)
				}
				text += fmt.Sprintf("%s='%s'\n", name, value)
			}
			text += "set -e\nset -x\n" + strings.Join(d.Run.Steps, "\n") + "\n"
			out, _ := inFolder(dir, nil, "sh", "-c", text)
			if signals, err := os.ReadFile(dir + "/signals"); string(signals) != c.signals {
				t.Errorf("%v, signals\n%swant\n%s%s", err, signals, c.signals, out)
			}
		})
	}
}
