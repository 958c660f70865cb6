package roles_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestPackages: .ci/packages, of which CI installs all and "make test" names what is missing, has
// each program that a test asks for by name.
func TestPackages(t *testing.T) {
	text, err := os.ReadFile("../.ci/packages")
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(string(text))
	asked := regexp.MustCompile(`(?:labtest\.Programs?|sshtest\.Need|\bNeed)\(t, ([^)]*)\)|\[lacks:([a-z]+)\]`)
	quoted := regexp.MustCompile(`"([^"]+)"`)
	found := 0
	for _, dir := range []string{"../roles", "../pfconf", "../matrix"} {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, ".txtar") {
				return err
			}
			text, err := os.ReadFile(name)
			for _, m := range asked.FindAllStringSubmatch(string(text), -1) {
				for _, q := range append(quoted.FindAllStringSubmatch(m[1], -1), []string{"", m[2]}) {
					program := path.Base(q[1])
					if q[1] == "" || slices.Contains([]string{"userns", "script", "bash"}, program) {
						continue // a right, or each Debian has it
					}
					if found++; !slices.Contains(known, program) {
						t.Errorf("%s: no package in .ci/packages has %s", name, program)
					}
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 15 {
		t.Errorf("only %d programs were found", found)
	}
}
