package socket

import (
	"errors"
	"net/netip"
	"os"
	"testing"
)

// TestReadTCPDrop has what tcpdrop(8) of OpenBSD 7.7 and FreeBSD 12.1 said.
func TestReadTCPDrop(t *testing.T) {
	status1 := errors.New("exit status 1")
	for _, test := range []struct {
		stdout, stderr string
		err            error
		ok, none       bool
	}{
		{"10.188.2.9:5000 10.188.1.1:10001 dropped\n", "", nil, true, false},
		{"[fd00:188:2::9]:5000 [fd00:188:1::1]:10002 dropped\n", "", nil, true, false},
		{"10.189.1.2 50325 10.189.1.1 7000: dropped\n", "", nil, true, false},
		{"", "tcpdrop: 10.188.2.9 5000 10.188.1.1 10001: No such process", status1, false, true},
		{"", "tcpdrop: 10.1.1.1 1 10.2.2.2 2: No such process", status1, false, true},
		{"", "tcpdrop: nosuchhost port 1: no address associated with name", status1, false, false},
		{"", "usage: tcpdrop local-addr local-port remote-addr remote-port", status1, false, false},
		{"", "", status1, false, false},
		{"", "", nil, false, false},
	} {
		err := readTCPDrop(test.stdout, test.stderr, test.err)
		if (err == nil) != test.ok || errors.Is(err, ErrNoSocket) != test.none {
			t.Errorf("%q %q %v: %v", test.stdout, test.stderr, test.err, err)
		}
	}
}

func TestFindInNetstat(t *testing.T) {
	for _, test := range []struct{ system, local, remote, want string }{
		{"openbsd", "10.188.2.9:5000", "10.188.1.1:10001", "TIME_WAIT"},
		{"openbsd", "[fd00:188:2::9]:5000", "[fd00:188:1::1]:10002", "TIME_WAIT"},
		{"openbsd", "10.188.1.2:22", "10.188.1.1:46656", "ESTABLISHED"},
		{"openbsd", "10.188.2.9:10886", "10.188.1.1:4000", "CLOSE_WAIT"},
		{"openbsd", "127.0.0.1:5000", "10.188.1.1:10001", ""}, // a listener
		{"openbsd", "10.188.1.1:10001", "10.188.2.9:5000", ""},
		{"freebsd", "10.189.1.2:50325", "10.189.1.1:7000", "ESTABLISHED"},
		{"freebsd", "10.189.9.9:80", "10.189.1.2:20042", "TIME_WAIT"},
	} {
		out, err := os.ReadFile("testdata/" + test.system + "/netstat")
		if err != nil {
			t.Fatal(err)
		}
		got, err := findInNetstat(string(out), netip.MustParseAddrPort(test.local),
			netip.MustParseAddrPort(test.remote))
		if got != test.want || (got == "") != errors.Is(err, ErrNoSocket) {
			t.Errorf("%+v: %q %v", test, got, err)
		}
	}
	// A line that was cut off could be the one.
	cut := "tcp6         0      0  fd00:188:2:aaaa:bbbb:cc fd00:188:1::1.10002    TIME_WAIT\n"
	if _, err := findInNetstat(cut, netip.AddrPort{}, netip.AddrPort{}); err == nil || errors.Is(err, ErrNoSocket) {
		t.Errorf("line cut off: %v", err)
	}
}

func FuzzNetstat(f *testing.F) {
	for _, system := range []string{"openbsd", "freebsd"} {
		b, err := os.ReadFile("testdata/" + system + "/netstat")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, s string) {
		state, err := findInNetstat(s, netip.MustParseAddrPort("10.188.2.9:5000"),
			netip.MustParseAddrPort("10.188.1.1:10001"))
		if (state == "") == (err == nil) {
			t.Errorf("%q: state %q and error %v", s, state, err)
		}
	})
}
