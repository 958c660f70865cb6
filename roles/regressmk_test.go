package roles_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pfdivert/matrix"
)

// TestRegressMk: make has a target for each target of the matrix, in the same
// order, and no other.
func TestRegressMk(t *testing.T) {
	text, err := os.ReadFile("../regress.mk")
	if err != nil {
		t.Fatal(err)
	}
	var got, want strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			got.WriteString(line)
		}
	}
	for _, target := range matrix.Targets() {
		want.WriteString("REGRESS_TARGETS += run-" + target.Name + "\n")
	}
	for _, target := range matrix.Claims() {
		want.WriteString("CLAIM_TARGETS += run-" + target.Name + "\n")
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("regress.mk is stale, run \"make generate\" (-want +got):\n%s", diff)
	}
}
