package explain

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocumented: docs/reasons.md says of each cause what the program says.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, s := range strings.Split(string(page), "\n#### ")[1:] {
		code, text, _ := strings.Cut(s, "\n")
		sections[code] = strings.Join(strings.Fields(text), " ")
	}
	braces := regexp.MustCompile(`\{(\w+)\}`)
	for _, c := range causes {
		for firewall, a := range c.Advice {
			// What is filled in behind a sentence is another each time.
			likely, _, _ := strings.Cut(a.Likely, ": {")
			likely, _, _ = strings.Cut(likely, " ({")
			for _, text := range []string{likely, a.Check, a.Mend} {
				text = braces.ReplaceAllString(text, "$1")
				if !strings.Contains(strings.ToLower(sections[c.Code]), strings.ToLower(text)) {
					t.Errorf("%s, %s: docs/reasons.md does not say %q", c.Code, firewall, text)
				}
			}
		}
	}
}
