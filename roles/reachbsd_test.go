package roles

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"pfdivert/matrix"
)

// TestNoLab: who can't be both hosts is told why, and what to do.
func TestNoLab(t *testing.T) {
	for _, c := range []struct {
		system string
		euid   int
		sudo   string
		why    string
	}{
		{"linux", 1000, "", ""},
		{"openbsd", 0, "", ""},
		{"openbsd", 1000, "doas", ""},
		{"openbsd", 1000, "", "set SUDO to doas"},
		{"freebsd", 0, "", ""},
		{"freebsd", 1001, "", "set SUDO to doas"},
		{"darwin", 0, "", "can't be both hosts"},
	} {
		why := noLab(c.system, c.euid, c.sudo)
		if (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s as %d, SUDO=%q: %q, want %q", c.system, c.euid, c.sudo, why, c.why)
		}
		if why == "" {
			continue
		}
		var text bytes.Buffer
		status, err := new(call).skipRun(&text, matrix.Targets(), why)
		if status != exitOK || err != nil || !strings.Contains(text.String(), why) || !strings.HasSuffix(text.String(), "\nSKIPPED\n") {
			t.Errorf("%s: exit status %d, %v, %q", c.system, status, err, text.String())
		}
	}
}

// -rdomain reaches REMOTE's agent, and nonsense is refused at once.
func TestRdomain(t *testing.T) {
	if got := remoteArgs(runFlags{}); !slices.Equal(got, []string{"agent"}) {
		t.Errorf("without: %q", got)
	}
	if got := remoteArgs(runFlags{domain: 2}); !slices.Equal(got, []string{"agent", "-rdomain", "2"}) {
		t.Errorf("with: %q", got)
	}
	for _, c := range []struct{ arg, want string }{
		{"-1", "-rdomain -1: there is no such routing domain\nhint: they go up to 255"},
		{"256", "-rdomain 256: there is no such routing domain"},
		{"x", "invalid value"},
		{"2", "this system has no routing domains\nhint: set REMOTE_SSH"}, // but OpenBSD
	} {
		if c.arg == "2" && !hasNamespaces {
			continue
		}
		status, out, err := callMain("pfdivert", "run", "-rdomain", c.arg, "inet-args-tcp-to")
		if status != exitError || !strings.Contains(err, c.want) {
			t.Errorf("-rdomain %s: exit status %d, %q, %q, want %q", c.arg, status, out, err, c.want)
		}
	}
}
