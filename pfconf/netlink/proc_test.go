package netlink

import (
	"slices"
	"testing"
)

// TestParseQueues: a table of queues as the kernel writes it is read, and nothing else is.
func TestParseQueues(t *testing.T) {
	const table = `26600   1834     0 2 65531     0     0        4  1
26601   1834     2 2 65531     3     1        9  1
`
	want := []Queue{{Number: 26600, LastID: 4}, {Number: 26601, Waiting: 2, Full: 3, Socket: 1, LastID: 9}}
	if got, err := ParseQueues(table); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"26602 1834 0 2\n",
		"26602 1834 0 2 65531 x 0 4 1\n", "66602 1834 0 2 65531 0 0 4 1\n"} {
		if got, err := ParseQueues(table + bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}
