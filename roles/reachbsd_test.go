package roles

import (
	"bytes"
	"os"
	"path/filepath"
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
		dir := t.TempDir()
		var names []string
		for _, f := range formats {
			names = append(names, filepath.Join(dir, f.flag))
		}
		files, err := openReports(names, nil)
		if err != nil {
			t.Fatal(err)
		}
		status, err := (&call{version: "v1"}).skipRun(output{text: &text, files: files}, matrix.Targets(), runFlags{}, why)
		if status != exitOK || err != nil || !strings.Contains(text.String(), why) || !strings.HasSuffix(text.String(), "\nSKIPPED\n") {
			t.Errorf("%s: exit status %d, %v, %q", c.system, status, err, text.String())
		}
		// The run succeeded, so its reports are there, and say that nothing was played.
		for format, want := range map[string]string{
			"json": `"targets":[]}`, "tap": "\n1..0 # SKIP No remote host is given. ", "junit": `tests="0" failures="0"`, "html": "<dt>Skipped</dt>",
		} {
			got, err := os.ReadFile(filepath.Join(dir, format))
			if err != nil || !strings.Contains(string(got), want) || !strings.Contains(string(got), "No remote host is given. ") {
				t.Errorf("%s: -%s: %v, %q", c.system, format, err, got)
			}
		}
		if past, err := new(call).readRun(filepath.Join(dir, "json")); err != nil || past.Run.Skipped == "" || len(past.Outcomes) != 0 {
			t.Errorf("%s: it is read as %+v, %v", c.system, past, err)
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
