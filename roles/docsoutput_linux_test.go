package roles_test

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pfdivert/roles/lab/labtest"
)

var updateDocs = flag.Bool("update-docs", false, "write the outputs in the documents anew")

// example is a command in a page, and what the page shows of its output.
type example struct {
	command     string
	first, last int // lines of the output: [first, last)
	indent      string
}

// fence is the line that begins or ends a block of code.
var fence = regexp.MustCompile("^( *)```(.*)$")

// script is the name of a file that the reader is told to make of the next block.
var script = regexp.MustCompile(`\b([a-z]+\.sh)\b`)

// examplesIn returns the commands behind "$ " in a page's blocks of code, and the scripts that it
// has its reader save, by name.
func examplesIn(lines []string) (examples []example, scripts map[string]string) {
	scripts = map[string]string{}
	name := ""
	for i := 0; i < len(lines); i++ {
		m := fence.FindStringSubmatch(lines[i])
		if m == nil {
			if s := script.FindStringSubmatch(lines[i]); s != nil {
				name = s[1]
			}
			continue
		}
		begin := i + 1
		for i++; i < len(lines) && !fence.MatchString(lines[i]); i++ {
		}
		if m[2] == "sh" && name != "" {
			scripts[name], name = strings.Join(lines[begin:i], "\n")+"\n", ""
		}
		for at := begin; at < i; at++ {
			command, ok := strings.CutPrefix(lines[at], m[1]+"$ ")
			if !ok {
				continue
			}
			last := at + 1
			for last < i && !strings.HasPrefix(lines[last], m[1]+"$ ") {
				last++
			}
			examples = append(examples, example{command, at + 1, last, m[1]})
		}
	}
	return examples, scripts
}

// changing is what differs from one run, machine or version to the other.
var changing = []struct {
	what *regexp.Regexp
	mask string
}{
	{regexp.MustCompile(`Linux [^ ",]+`), "Linux KERNEL"},
	{regexp.MustCompile(`linux/\w+`), "linux/ARCH"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`), "DATE"},
	{regexp.MustCompile(`"version":"[^"]*"`), `"version":V`},
	{regexp.MustCompile(`"seconds":[\d.]+`), `"seconds":T`},
	{regexp.MustCompile(`\d[\d.]* ?m?s\b`), "TIME"},
	{regexp.MustCompile(`\d+ cells/s`), "RATE"},
	{regexp.MustCompile(`(?m)^(\S+ +\d+ +\d+ +\d+) +[\d. ]+$`), "$1 TIMES"},
	{regexp.MustCompile(`10\.(19[2-9]|20\d|21\d|22[0-3])\.\d+\.\d+`), "CELL"},
	{regexp.MustCompile(`([ :])([89]\d{3}|[1-6]\d{4})\b`), "${1}PORT"},
	{regexp.MustCompile(`/proc/[\d/task]*`), "/proc/PID/"},
	{regexp.MustCompile(`matched \d+ packets, its action served \d+`), "matched N packets, its action served N"},
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(` +\n`), "\n"},
}

func masked(text string) string {
	for _, c := range changing {
		text = c.what.ReplaceAllString(text, c.mask)
	}
	return strings.TrimSpace(text)
}

// fits reports whether the output is what the page shows. A line "…" stands for any lines. The
// lines of a script come from several processes, in any order.
func fits(shown, got, command string) bool {
	shown, got = masked(shown), masked(got)
	if strings.Contains(command, ".sh") {
		a, b := strings.Split(shown, "\n"), strings.Split(got, "\n")
		slices.Sort(a)
		slices.Sort(b)
		return slices.Equal(a, b)
	}
	parts := strings.Split(regexp.QuoteMeta(shown), "…")
	return regexp.MustCompile(`^(?s:` + strings.Join(parts, ".*") + `)$`).MatchString(got)
}

// reader is someone who types what the pages say, in a folder with the program.
type reader struct {
	dir string
}

func newReader(t *testing.T) reader {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := reader{t.TempDir()}
	if err := os.Symlink(self, filepath.Join(r.dir, "pfdivert")); err != nil {
		t.Fatal(err)
	}
	// Two runs to compare.
	if err := os.CopyFS(r.dir, os.DirFS("testdata/docs")); err != nil {
		t.Fatal(err)
	}
	return r
}

// types runs a command with a terminal as its standard output, and returns what it printed there
// and then what it printed to standard error.
func (r reader) types(command string) (string, error) {
	var errors bytes.Buffer
	line := "(" + command + ") 2>stderr"
	if strings.Contains(command, "pfdivert lab ") && !strings.Contains(command, " -- ") {
		line = command + " </dev/null" // a shell: it greets terminals, and ends at once
	}
	cmd := exec.Command("script", "-qec", line, "/dev/null")
	cmd.Dir = r.dir
	cmd.Stderr = &errors
	// See TestMain.
	cmd.Env = append(os.Environ(), "PFDIVERT_TEST_PROGRAM=1", "NO_COLOR=1", "SHELL=/bin/sh", "REMOTE_SSH=", "PS1=")
	out, err := cmd.Output()
	said, _ := os.ReadFile(filepath.Join(r.dir, "stderr"))
	return strings.ReplaceAll(string(out), "\r\n", "\n") + errors.String() + string(said), err
}

// TestDocumentedOutput types each command that a page shows with its output, and compares that.
// With -update-docs it writes them anew.
func TestDocumentedOutput(t *testing.T) {
	labtest.Need(t)
	labtest.Programs(t, "script", "nsenter")
	ran := 0
	all := pages(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		lines := strings.Split(all[name], "\n")
		examples, scripts := examplesIn(lines)
		r := newReader(t)
		for file, text := range scripts {
			if err := os.WriteFile(filepath.Join(r.dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range slices.Backward(examples) {
			if strings.HasPrefix(e.command, "sudo ") {
				continue // of hosts of readers: TestDiagnose of roles/twin has their set-ups
			}
			ran++
			var shown strings.Builder
			for _, line := range lines[e.first:e.last] {
				shown.WriteString(strings.TrimPrefix(line, e.indent) + "\n")
			}
			got, err := r.types(e.command)
			if fits(shown.String(), got, e.command) {
				continue
			}
			if !*updateDocs || strings.Contains(shown.String(), "…") {
				t.Errorf("%s: %s: %v\n%s\nThe page has\n%s", name, e.command, err, masked(got), masked(shown.String()))
				continue
			}
			var fresh []string
			for line := range strings.Lines(strings.TrimSpace(got)) {
				fresh = append(fresh, strings.TrimRight(e.indent+line, " \n"))
			}
			lines = slices.Replace(lines, e.first, e.last, fresh...)
		}
		if text := strings.Join(lines, "\n"); *updateDocs && text != all[name] {
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ran < 12 {
		t.Errorf("only %d commands with their output were found in the pages", ran)
	}
}

// TestDocumentedCommandsWork types each command that a page shows without its output.
func TestDocumentedCommandsWork(t *testing.T) {
	labtest.Need(t)
	labtest.Programs(t, "script")
	ran := 0
	r := newReader(t)
	for name, page := range pages(t) {
		for line := range strings.Lines(page) {
			command, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ./pfdivert ")
			if !ok {
				continue
			}
			command, _, _ = strings.Cut(command, "  ") // an explanation
			command = "./pfdivert " + command
			if strings.HasPrefix(command, "./pfdivert run -kernel ") {
				continue // .ci/kernels boots some, and testdata/kernel does without QEMU
			}
			if strings.HasPrefix(command, "./pfdivert pf-setup ") {
				command = "./pfdivert lab -q -host remote -- " + command // not this machine's filter
			}
			ran++
			if out, err := r.types(command); err != nil {
				t.Errorf("%s: %s: %v\n%s", name, command, err, out)
			}
		}
	}
	if ran < 15 {
		t.Errorf("only %d commands were found in the pages", ran)
	}
}
