package roles

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pfdivert/roles/lab/labtest"
)

// TestManual holds docs/pfdivert.1 to the program: a subsection for each role, in which are the
// role's flags and no other, and a name for each link that 'make install' makes.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../docs/pfdivert.1")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), "\n.Ss ")
	rest, _, _ = strings.Cut(rest, "\n.Sh ")
	sections := map[string]string{}
	for _, s := range strings.Split(rest, "\n.Ss ") {
		name, body, _ := strings.Cut(s, "\n")
		sections[name] = body
	}
	for _, r := range all() {
		body, ok := sections[r.Name]
		delete(sections, r.Name)
		if ok == r.Hidden {
			t.Errorf("the manual has role %s: %v", r.Name, ok)
		}
		if r.Link && !strings.Contains(before, ".Nm pfdivert-"+r.Name) {
			t.Errorf("the manual has no name pfdivert-%s", r.Name)
		}
		if r.Hidden {
			continue
		}
		_, help, _ := callMain("pfdivert", r.Name, "-h")
		has := flagsOf(`(?m)^\.It Fl (\S+)`, body)
		want := flagsOf(`(?m)^  -(\S+)(?: \S+)?(?:\t.*)?$`, flagList(help))
		if !slices.Equal(has, want) {
			t.Errorf("role %s: the manual has the flags %q, the program %q", r.Name, has, want)
		}
	}
	for name := range sections {
		t.Errorf("the manual has a role %s", name)
	}
}

// flagList returns the part of a role's help that lists its flags.
func flagList(help string) string {
	_, list, _ := strings.Cut(help, "\nFlags:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	return list
}

// flagsOf returns what the expression finds, in order; mdoc's "\-" is a "-".
func flagsOf(expression, text string) []string {
	var names []string
	for _, m := range regexp.MustCompile(expression).FindAllStringSubmatch(text, -1) {
		names = append(names, strings.ReplaceAll(m[1], `\-`, "-"))
	}
	slices.Sort(names)
	return names
}

// TestManualLint: mandoc finds nothing wrong with the manual page.
func TestManualLint(t *testing.T) {
	mandoc := labtest.Program(t, "mandoc")
	out, err := exec.Command(mandoc, "-T", "lint", "-W", "warning", "../docs/pfdivert.1").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
