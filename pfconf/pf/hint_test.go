package pf

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestNoPfctl asks the host's own pfctl, if there is one, a question that it can't answer.
func TestNoPfctl(t *testing.T) {
	_, err := NewControl(nil, 0).pfctl(t.Context(), "", nothing, "-s", "nosuch")
	if err == nil {
		t.Error("pfctl -s nosuch was answered")
	}
	if errors.Is(err, exec.ErrNotFound) && !strings.Contains(hintOf(err), "OpenBSD") {
		t.Errorf("%v without a hint", err)
	}
}
