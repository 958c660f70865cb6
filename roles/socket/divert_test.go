package socket

import (
	"pfdivert/matrix/script"
	"testing"
)

// netstat(1) of OpenBSD 7.7, with another number of packets that found a socket full.
const divertStats = `divert:
	3 total packets received
	1 dropped due to no socket
	7 dropped due to full socket buffers
	2 packets output
	0 errors
`

// netstat(1) of FreeBSD 15.1.
const freeBSDDivert = `divert:
	23339 packets successfully diverted to userland
	32 packets failed to divert due to no socket bound at port
	16 packets successfully re-injected as outbound
	12 packets successfully re-injected as inbound
`

func TestParseDropped(t *testing.T) {
	const one = "divert:\n\t1 packet failed to divert due to no socket bound at port\n"
	for text, want := range map[string]uint64{freeBSDDivert: 32, one: 1} {
		if got, err := parseFreeBSDDivert(text); err != nil || got != (script.Dropped{NoSocket: want}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", divertStats, "divert:\n\tx packets failed to divert due to no socket bound at port\n"} {
		if got, err := parseFreeBSDDivert(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
	if got, err := parseDivertStats(divertStats); err != nil || got != (script.Dropped{NoSocket: 1, NoRoom: 7}) {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"", "divert:\n\t1 dropped due to no socket\n",
		"x dropped due to no socket\n1 dropped due to full socket buffers\n"} {
		if got, err := parseDivertStats(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}
