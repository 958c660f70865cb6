package socket_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testdata/openbsd has the logs of upstream's programs, rewritten in Go, on
// OpenBSD 7.7 and its Linux peer. They quote the data and tell what getpeername
// failed with and the IP header, which we do not.
var (
	quoted  = regexp.MustCompile(`^(>>>|<<<) "(.*)\\n"( <nil>)?$`)
	address = regexp.MustCompile(`^([a-z ]+): [0-9a-f.:]+ [0-9]+$`)
)

// form reduces a log to what must be the same in all runs.
func form(log string) (lines []string) {
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		line = quoted.ReplaceAllString(line, "$1 $2")
		line = address.ReplaceAllString(line, "$1: ADDRESS PORT")
		if !strings.Contains(line, "getpeername") && !strings.HasPrefix(line, "ip header") {
			lines = append(lines, line)
		}
	}
	return lines
}

// logged compares an endpoint's log with that of testdata/openbsd.
func logged(t *testing.T, got, name string) {
	t.Helper()
	want, err := os.ReadFile("testdata/openbsd/" + name)
	must(t, err)
	if diff := cmp.Diff(form(string(want)), form(got)); diff != "" {
		t.Error(diff)
	}
}
