package terminal

import "testing"

// TestAsCalled: a hint's command can be typed where the program was started by its path.
func TestAsCalled(t *testing.T) {
	for _, c := range []struct{ text, name, want string }{
		{"'pfdivert list' shows all", "./pfdivert", "'./pfdivert list' shows all"},
		{"pfdivert client 10.188.2.9:4000", "/root/pfdivert", "/root/pfdivert client 10.188.2.9:4000"},
		{"'pfdivert list' shows all", "pfdivert", "'pfdivert list' shows all"},
		{"'pfdivert list' shows all", "./client", "'pfdivert list' shows all"},
		{"remove /var/run/pfdivert or run 'pfdivert cleanup'", "./pfdivert",
			"remove /var/run/pfdivert or run './pfdivert cleanup'"},
	} {
		if got := asCalled(c.text, c.name); got != c.want {
			t.Errorf("%q started as %q: %q", c.text, c.name, got)
		}
	}
}
