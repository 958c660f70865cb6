package roles

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/roles/lab/labtest"
)

// kept reads a list in testdata/kept. They are of the program as it was before its parts got their
// present names: what machines read of it stays.
func kept(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/kept", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// jsonKeys adds the paths of all keys of a JSON value.
func jsonKeys(v any, path string, all map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			key := strings.TrimPrefix(path+"."+k, ".")
			all[key] = true
			jsonKeys(x, key, all)
		}
	case []any:
		for _, x := range v {
			jsonKeys(x, path+"[]", all)
		}
	}
}

// TestKept: targets, reason codes and the keys of JSON are those that they were.
func TestKept(t *testing.T) {
	var targets, reasons []string
	for _, target := range append(matrix.Targets(), matrix.Claims()...) {
		targets = append(targets, target.Name)
	}
	page, err := os.ReadFile("../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^### (.*)$`).FindAllSubmatch(page, -1) {
		reasons = append(reasons, string(m[1]))
	}
	// Fields that only some runs show, such as those of explanations and evidence, are looked for
	// where they are declared.
	var fields []string
	for _, dir := range []string{".", "report", "../matrix", "../matrix/explain", "../matrix/evidence"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || files == nil {
			t.Fatal(dir, err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`json:"(\w+)`).FindAllSubmatch(text, -1) {
				fields = append(fields, string(m[1]))
			}
		}
	}
	for name, now := range map[string][]string{"targets.txt": targets, "reasons.txt": reasons,
		"jsonfields.txt": fields} {
		for _, one := range kept(t, name) {
			if !slices.Contains(now, one) {
				t.Errorf("%s: %s is missing", name, one)
			}
		}
	}
}

// TestKeptJSON: a run of all targets writes the keys that it wrote, and no other.
func TestKeptJSON(t *testing.T) {
	labtest.Need(t)
	cmd := exec.Command(filepath.Join(program(t), "pfdivert"), "run", "-json", "-", "*")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var run any
	if err := json.Unmarshal(out, &run); err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	jsonKeys(run, "", all)
	want := kept(t, "jsonkeys.txt")
	for _, key := range want {
		if !all[key] {
			t.Errorf("there is no %s", key)
		}
	}
	for key := range all {
		// A target that does not pass on this kernel has more to tell.
		if !slices.Contains(want, key) && !strings.HasPrefix(key, "targets[].explanation") {
			t.Errorf("%s is new", key)
		}
	}
}
