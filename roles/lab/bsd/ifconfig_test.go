package bsd

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func (n nic) String() string {
	s := fmt.Sprintf("%s in %d %v", n.name, n.domain, n.addresses)
	if n.description != "" {
		s += fmt.Sprintf(" %q", n.description)
	}
	if n.waiting {
		s += " waiting"
	}
	if n.duplicated != "" {
		s += " duplicated " + n.duplicated
	}
	return s
}

// TestParseIfconfig has what ifconfig of OpenBSD 7.7 and FreeBSD 12.1 printed, the first while a
// lab stood.
func TestParseIfconfig(t *testing.T) {
	for _, test := range []struct{ file, want string }{
		{"openbsd-ifconfig.txt", `lo0 in 0 [::1/128 fe80::1/64 127.0.0.1/8]
vio0 in 0 [10.0.2.15/24]
vio1 in 0 [10.188.1.2/24 fe80::5054:ff:fe18:8102/64 fd00:188:1::2/64]
enc0 in 0 []
pflog0 in 0 []
lo1 in 1 [] "pfdivert lab"
pair1 in 1 [10.188.3.1/24 fe80::fce1:baff:fedc:94fd/64 fd00:188:3::1/64] "pfdivert lab"
pair2 in 0 [10.188.3.2/24 fe80::fce1:baff:fedd:27a/64 fd00:188:3::2/64] "pfdivert lab"`},
		{"openbsd-router.txt", `lo0 in 0 [::1/128 fe80::1/64 127.0.0.1/8]
vio0 in 0 [10.188.1.2/24 fe80::5054:ff:fe12:3402/64 fd00:188:1::2/64]
enc0 in 0 []
lo1 in 1 [] "pfdivert lab"
lo2 in 2 [] "pfdivert lab"
pair1 in 1 [10.188.3.1/24 fe80::fce1:baff:fed2:62ee/64 fd00:188:3::1/64] "pfdivert lab"
pair2 in 0 [10.188.3.2/24 fe80::fce1:baff:fed3:5513/64 fd00:188:3::2/64] "pfdivert lab"
pair3 in 1 [10.188.5.1/24 fe80::fce1:baff:fed4:de12/64 fd00:188:5::1/64] "pfdivert lab"
pair4 in 0 [10.188.5.2/24 fe80::fce1:baff:fed5:7ad0/64 fd00:188:5::2/64] "pfdivert lab"
pair5 in 0 [10.188.6.1/24 fe80::fce1:baff:fed6:8eb/64 fd00:188:6::1/64] "pfdivert lab"
pair6 in 2 [10.188.6.2/24 fe80::fce1:baff:fed7:d4fb/64 fd00:188:6::2/64] "pfdivert lab"`},
		{"openbsd-tentative.txt", `pair4 in 4 [10.188.11.1/24 fe80::fce1:baff:fed0:f80b/64 fd00:188:11::1/64] "pfdivert lab" waiting`},
		{"freebsd-ifconfig.txt", `lo0 in 0 [fe80::1/64 ::1/128 127.0.0.1/8]
pflog0 in 0 []
pfsync0 in 0 []
epair0b in 0 [fe80::f9:75ff:fe3f:b/64 fd00:189:11::2/64 10.189.11.2/24]`},
	} {
		out, err := os.ReadFile("testdata/" + test.file)
		if err != nil {
			t.Fatal(err)
		}
		nics, err := parseIfconfig(string(out))
		if err != nil {
			t.Errorf("%s: %v", test.file, err)
		}
		var got []string
		for _, n := range nics {
			got = append(got, n.String())
		}
		if strings.Join(got, "\n") != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", test.file, strings.Join(got, "\n"), test.want)
		}
	}
}

func TestParseIfconfigLines(t *testing.T) {
	for _, test := range []struct{ out, want string }{
		{"tun0: flags=51<UP> mtu 1500\n\tinet 10.1.0.1 --> 10.1.0.2 netmask 0xffffffff\n", "tun0 in 0 [10.1.0.1/32]"},
		{"em0: flags=1<UP> rdomain 255 mtu 1500\n\tinet6 fd00::1 prefixlen 64 duplicated\n", "em0 in 255 [fd00::1/64] duplicated fd00::1"},
		{"em0: flags=1<UP>\n\tdescription: to the lab: pfdivert lab\n", `em0 in 0 [] "to the lab: pfdivert lab"`},
		{"em0: flags=1<UP>\n\tinet 10.1.0.999 netmask 0xff000000\n", "error"},
		{"em0: flags=1<UP>\n\tinet 10.1.0.1 netmask 255.0.0.0\n", "error"},
		{"em0: flags=1<UP>\n\tinet6 fd00::1 prefixlen 129\n", "error"},
		{"em0: flags=1<UP>\n\tinet\n", "error"},
		{"em0: flags=1<UP> rdomain x\n", "error"},
		{"\tinet 10.1.0.1 netmask 0xff000000\n", "error"},
		{"no such interface\n", "error"},
	} {
		nics, err := parseIfconfig(test.out)
		got := "error"
		if err == nil && len(nics) == 1 {
			got = nics[0].String()
		}
		if got != test.want {
			t.Errorf("%q: %s (%v), want %s", test.out, got, err, test.want)
		}
	}
}

func FuzzParseIfconfig(f *testing.F) {
	for _, name := range []string{"openbsd-ifconfig.txt", "openbsd-router.txt", "openbsd-tentative.txt",
		"freebsd-ifconfig.txt"} {
		out, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(out))
	}
	f.Fuzz(func(t *testing.T, out string) {
		nics, err := parseIfconfig(out)
		if err == nil && len(nics) == 0 && strings.TrimSpace(out) != "" {
			t.Errorf("%q: nothing was read and nothing complained of", out)
		}
		for _, n := range nics {
			for _, p := range n.addresses {
				if err == nil && !p.IsValid() {
					t.Errorf("%q: %v", out, p)
				}
			}
		}
	})
}
