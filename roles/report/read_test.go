package report

import (
	"fmt"
	"strings"
	"testing"
)

// TestReadTimes checks that a report with an impossible time is refused, wherever the time stands:
// it would be printed as a negative number of minutes.
func TestReadTimes(t *testing.T) {
	for _, c := range []struct {
		run, host, target, want string // seconds, and a part of the error
	}{
		{"1", "1", "1", ""},
		{"1e308", "1", "1", "the run: 1e+308 seconds are no time"},
		{"-1", "1", "1", "the run: -1 seconds are no time"},
		{"1", "1e308", "1", `host "a": 1e+308 seconds are no time`},
		{"1", "1", "1e308", `"inet-args-tcp-to": 1e+308 seconds are no time`},
		{"1", "1", "-1", `"inet-args-tcp-to": -1 seconds are no time`},
	} {
		text := fmt.Sprintf(`{"run":{"version":"v1","seconds":%s},"hosts":[{"name":"a","seconds":%s}],`+
			`"targets":[{"name":"inet-args-tcp-to","host":"a","verdict":"PASS","seconds":%s}]}`, c.run, c.host, c.target)
		_, err := ReadJSON(strings.NewReader(text))
		if (err == nil) != (c.want == "") || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q", text, err, c.want)
		}
	}
}
