package testbed

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pfdivert/matrix"
	"pfdivert/pfconf"
	"pfdivert/roles/agent"
)

// twoHosts is a hosts file as docs/remote.md has it.
const twoHosts = `# kernels to compare
root@10.188.1.2  name=openbsd77
    LOCAL_ADDR=10.188.1.1     REMOTE_ADDR=10.188.1.2     FAKE_ADDR=10.188.2.0/24
    LOCAL_ADDR6=fd00:188:1::1 REMOTE_ADDR6=fd00:188:1::2 FAKE_ADDR6=fd00:188:2::/64

tester@debian SUDO=sudo SSH_OPTIONS="-p 2222 -o 'User=tester'"  # the other
    LOCAL_ADDR=10.77.1.1     REMOTE_ADDR=10.77.1.2     FAKE_ADDR=10.77.2.9
    LOCAL_ADDR6=fd00:77:1::1 REMOTE_ADDR6=fd00:77:1::2 FAKE_ADDR6=fd00:77:2::9
`

// TestDocumentedHosts reads the hosts file that docs/remote.md shows.
func TestDocumentedHosts(t *testing.T) {
	page, err := os.ReadFile("../../docs/remote.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "\n    # kernels to compare\n")
	text, _, _ = strings.Cut(text, "\n\nA line that begins")
	hosts, err := parseHosts("FILE", text)
	if err != nil {
		t.Fatal(err)
	}
	if err := validateHosts(hosts, matrix.Targets(), func(string) string { return "" }); err != nil {
		t.Error(err)
	}
	if len(hosts) != 2 || hosts[0].name != "openbsd77" || hosts[1].name != "debian" {
		t.Errorf("%+v", hosts)
	}
}

func TestParseHosts(t *testing.T) {
	got, err := parseHosts("hosts", twoHosts)
	if err != nil {
		t.Fatal(err)
	}
	want := []fileHost{
		{name: "openbsd77", ssh: "root@10.188.1.2", where: "hosts:2", set: map[string]string{
			"LOCAL_ADDR": "10.188.1.1", "REMOTE_ADDR": "10.188.1.2", "FAKE_ADDR": "10.188.2.0/24",
			"LOCAL_ADDR6": "fd00:188:1::1", "REMOTE_ADDR6": "fd00:188:1::2", "FAKE_ADDR6": "fd00:188:2::/64"}},
		{name: "debian", ssh: "tester@debian", where: "hosts:6", set: map[string]string{
			"SUDO": "sudo", "SSH_OPTIONS": "-p 2222 -o 'User=tester'",
			"LOCAL_ADDR": "10.77.1.1", "REMOTE_ADDR": "10.77.1.2", "FAKE_ADDR": "10.77.2.9",
			"LOCAL_ADDR6": "fd00:77:1::1", "REMOTE_ADDR6": "fd00:77:1::2", "FAKE_ADDR6": "fd00:77:2::9"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(fileHost{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := validateHosts(got, matrix.Targets(), func(string) string { return "" }); err != nil {
		t.Error(err)
	}
	env := got[1].getenv(func(name string) string { return "of the environment: " + name })
	for name, want := range map[string]string{
		"REMOTE_SSH": "tester@debian", "SUDO": "sudo", "FAKE_ADDR": "10.77.2.9", "HOME": "of the environment: HOME",
	} {
		if got := env(name); got != want {
			t.Errorf("%s=%q, want %q", name, got, want)
		}
	}
}

// checkWrong judges an error and its hint.
func checkWrong(t *testing.T, err error, want, hint string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; want %q", want)
		return
	}
	if got := agent.HintOf(err); err.Error() != want || !strings.Contains(got, hint) || got == "" {
		t.Errorf("error: %v\nhint: %s\nwant %q and %q", err, got, want, hint)
	}
}

func TestParseHostsWrong(t *testing.T) {
	for _, c := range []struct{ text, err, hint string }{
		{"# nothing\n", "f: there is no host in it", "root@pfhost"},
		{"FAKE_ADDR=10.0.0.1", "f:1: FAKE_ADDR belongs to no host", "root@pfhost FAKE_ADDR=10.0.0.1"},
		{"a\nb c", `f:2: "c" is no NAME=VALUE`, "every host begins a line"},
		{"a\n b FAKE_ADR=1", `f:2: there is no "FAKE_ADR"`, "the nearest is FAKE_ADDR"},
		{"a SUDO=doas\nSUDO=sudo", "f:2: SUDO is given twice for a", "at a line's beginning"},
		{"a name=x name=y", "f:1: name is given twice for a", ""},
		{"a SSH_OPTIONS='-p 1\nb", "f:1: the quote ' is not closed", "same line"},
		{"-oProxyCommand", `f:1: "-oProxyCommand" is no ssh destination`, "root@pfhost"},
		{"'a b'", `f:1: "a b" is no ssh destination`, "root@pfhost"},
		{"''", `f:1: "" can't be the host's name in the report`, "name=NAME"},
		{"a name=../x", `f:1: "../x" can't be the host's name in the report`, "name=NAME"},
		{"root@fe80::1%vio0", `f:1: "fe80::1%vio0" can't be the host's name in the report`, "name=NAME"},
		{"root@a\n\nb name=c\ntester@a", "f:4: a is the name of the host of f:1, too", "name=NAME"},
	} {
		_, err := parseHosts("f", c.text)
		checkWrong(t, err, c.err, c.hint)
	}
}

func TestReadHosts(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, []byte(strings.Repeat("#\n", maxHostsFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := readHosts(large)
	checkWrong(t, err, "hosts file: "+large+" has more than 1048576 bytes", "several files")
	none := filepath.Join(dir, "none")
	_, err = readHosts(none)
	checkWrong(t, err, "hosts file: open "+none+": no such file or directory", "docs/remote.md")
}

func TestValidateHosts(t *testing.T) {
	const first = "a LOCAL_ADDR=10.1.0.1 REMOTE_ADDR=10.1.0.2 FAKE_ADDR=10.2.0.0/24 GATEWAY_ADDR=10.3.0.1 MIRROR_ADDR=10.4.0.1\n"
	env := func(name string) string { return map[string]string{"LOCAL_ADDR": "10.1.0.1"}[name] }
	inet, err := matrix.Select([]string{"inet-args-*", "inet-divert-forwarded"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ second, err, hint string }{
		{"b REMOTE_ADDR=10.1.0.3 FAKE_ADDR=10.2.1.0/24", "", ""}, // LOCAL_ADDR is the environment's
		{"b REMOTE_ADDR=10.1.0.3 FAKE_ADDR=10.2.0.9",
			"f:2: FAKE_ADDR of b is 10.2.0.9/32, and FAKE_ADDR of a (f:1) is 10.2.0.0/24", "a FAKE_ADDR of its own"},
		{"b REMOTE_ADDR=10.1.0.2 FAKE_ADDR=10.2.1.9", "f:2: REMOTE_ADDR of b is 10.1.0.2/32, and REMOTE_ADDR of a (f:1) is 10.1.0.2/32",
			"a REMOTE_ADDR of its own"},
		{"b REMOTE_ADDR=10.2.0.7 FAKE_ADDR=10.2.1.9", "f:2: REMOTE_ADDR of b is 10.2.0.7/32, and FAKE_ADDR of a (f:1) is 10.2.0.0/24",
			"a FAKE_ADDR of its own"},
		{"b REMOTE_ADDR=10.1.0.3 FAKE_ADDR=10.2.1.9 GATEWAY_ADDR=10.3.0.1 MIRROR_ADDR=10.4.0.2", "", ""},
		{"b REMOTE_ADDR=10.1.0.3 FAKE_ADDR=10.2.1.9 MIRROR_ADDR=10.4.0.1",
			"f:2: MIRROR_ADDR of b is 10.4.0.1/32, and MIRROR_ADDR of a (f:1) is 10.4.0.1/32", "a MIRROR_ADDR of its own"},
		{"b REMOTE_ADDR=10.1.0.3 FAKE_ADDR=10.2.1.9 MIRROR_ADDR=10.2.0.7",
			"f:2: MIRROR_ADDR of b is 10.2.0.7/32, and FAKE_ADDR of a (f:1) is 10.2.0.0/24", "a FAKE_ADDR of its own"},
		{"b REMOTE_ADDR=10.1.0.3 FAKE_ADDR=10.2.1.9 MIRROR_ADDR=x", `f:2: b: MIRROR_ADDR="x": this is no plain address`,
			"set MIRROR_ADDR to a third host"},
		{"b REMOTE_ADDR=10.1.0.3", "f:2: b: FAKE_ADDR: not set, and inet targets are to run", "all three of a family"},
		{"b REMOTE_ADDR=10.1.0.3 FAKE_ADDR=x", `f:2: b: FAKE_ADDR="x": neither an address nor a prefix`,
			"may be a prefix"},
	} {
		hosts, err := parseHosts("f", first+c.second)
		if err != nil {
			t.Fatal(err)
		}
		err = validateHosts(hosts, inet, env)
		if c.err == "" {
			if err != nil {
				t.Errorf("%s: %v", c.second, err)
			}
			continue
		}
		checkWrong(t, err, c.err, c.hint)
	}
	// A run that has no target about third hosts does not go there.
	hosts, err := parseHosts("f", first+"b REMOTE_ADDR=10.1.0.3 FAKE_ADDR=10.2.1.9 MIRROR_ADDR=10.4.0.1")
	if err != nil {
		t.Fatal(err)
	}
	suite := slices.DeleteFunc(matrix.Targets(), func(t matrix.Target) bool { return t.Family != pfconf.Inet })
	if err := validateHosts(hosts, suite, env); err != nil {
		t.Errorf("the suite: %v", err)
	}
}

func TestSelectHosts(t *testing.T) {
	all, err := parseHosts("f", "root@a\nroot@b name=openbsd77\nc")
	if err != nil {
		t.Fatal(err)
	}
	for names, want := range map[string]string{"": "a openbsd77 c", " c root@a": "a c",
		"openbsd77 root@b": "openbsd77"} {
		chosen, err := selectHosts(all, names)
		var got []string
		for _, h := range chosen {
			got = append(got, h.name)
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q %v, want %q", names, got, err, want)
		}
	}
	_, err = selectHosts(all, "a openbsd76")
	checkWrong(t, err, `REMOTE_SSH: there is no host "openbsd76" in the hosts file`, "the nearest is openbsd77;")
	env := map[string]string{"REMOTE_SSH": "a b"}
	_, err = Find(Options{Getenv: func(name string) string { return env[name] }}, nil)
	checkWrong(t, err, "REMOTE_SSH names 2 hosts; each needs addresses of its own", "-hosts FILE")
}

// Whatever the file says, what comes out can be a folder and is not there twice.
func FuzzParseHosts(f *testing.F) {
	f.Add(twoHosts)
	f.Add("a name='x' # y\r\nb\tSUDO=\"doas -u 'root'\"")
	f.Fuzz(func(t *testing.T, text string) {
		hosts, err := parseHosts("f", text)
		if err != nil {
			return
		}
		if len(hosts) == 0 {
			t.Fatalf("%d hosts", len(hosts))
		}
		names := map[string]bool{}
		for _, h := range hosts {
			if names[h.name] || h.name != filepath.Base(h.name) || strings.HasPrefix(h.name, ".") || h.ssh == "" ||
				strings.HasPrefix(h.ssh, "-") {
				t.Errorf("host %+v", h)
			}
			names[h.name] = true
		}
	})
}

// TestManyHosts: a file may have more hosts than one run tests, and REMOTE_SSH chooses among them.
func TestManyHosts(t *testing.T) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "root@host%d LOCAL_ADDR=10.1.0.1 REMOTE_ADDR=10.1.%d.%d FAKE_ADDR=10.2.%d.%d\n", i, i/100, 2+i%100,
			i/100, i%100)
	}
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	hosts, err := readHosts(file)
	if err != nil || len(hosts) != 1000 {
		t.Fatalf("%d hosts, %v", len(hosts), err)
	}
	_, err = selectHosts(hosts, "")
	checkWrong(t, err, "these are 1000 hosts, and a run tests 32 at most", "REMOTE_SSH='host0 host1'")
	if chosen, err := selectHosts(hosts, "host0 host999"); err != nil || len(chosen) != 2 {
		t.Errorf("%v, %v", chosen, err)
	}
}

// TestByteOrderMark: what editors put before a file's text is no part of a host's name.
func TestByteOrderMark(t *testing.T) {
	hosts, err := parseHosts("f", "\ufeffroot@a\nb\n")
	if err != nil || len(hosts) != 2 || hosts[0].ssh != "root@a" || hosts[0].name != "a" {
		t.Errorf("%+v, %v", hosts, err)
	}
}

// TestUnsetAddresses: the hint is about the addresses that are set.
func TestUnsetAddresses(t *testing.T) {
	for _, c := range []struct{ set, err, hint string }{
		{"", "LOCAL_ADDR, REMOTE_ADDR, FAKE_ADDR: not set, and inet targets are to run", "docs/remote.md"},
		{"LOCAL_ADDR REMOTE_ADDR LOCAL_ADDR6", "FAKE_ADDR: not set, and inet targets are to run", "docs/remote.md"},
		{"LOCAL_ADDR6 REMOTE_ADDR6 FAKE_ADDR6",
			"LOCAL_ADDR, REMOTE_ADDR, FAKE_ADDR: not set, and inet targets are to run",
			"set LOCAL_ADDR, REMOTE_ADDR, FAKE_ADDR, or run the targets of inet6 alone: pfdivert run 'inet6-*'"},
	} {
		_, err := addressesOf(pfconf.Inet, func(name string) string {
			if slices.Contains(strings.Fields(c.set), name) {
				return "10.1.0.1"
			}
			return ""
		})
		checkWrong(t, err, c.err, c.hint)
		if !strings.Contains(c.hint, "inet6") && strings.Contains(agent.HintOf(err), "inet6") {
			t.Errorf("%q: the hint is %q", c.set, agent.HintOf(err))
		}
	}
}

// The addresses beyond REMOTE are each optional, and refused when they can't be what they are said
// to be; without REMOTE_SSH no one uses them.
func TestSecondNetworks(t *testing.T) {
	own := map[pfconf.Family]matrix.Addresses{
		pfconf.Inet: {Local: netip.MustParseAddr("10.1.0.1"), Remote: netip.MustParseAddr("10.1.0.2"),
			Fakes: netip.MustParsePrefix("10.2.0.0/24")},
		pfconf.Inet6: {Local: netip.MustParseAddr("fd01::1"), Remote: netip.MustParseAddr("fd01::2"),
			Fakes: netip.MustParsePrefix("fd02::9/128")},
	}
	const gatewayHint, mirrorHint = "to an address of LOCAL's in a network that REMOTE has a second interface in, or unset it",
		"to a third host behind another interface of REMOTE's, or unset it"
	for _, c := range []struct{ name, value, err, hint string }{
		{"GATEWAY_ADDR", "10.3.0.1", "", ""},
		{"GATEWAY_ADDR6", "fd03::1", "", ""},
		{"MIRROR_ADDR", "10.4.0.1", "", ""},
		{"MIRROR_ADDR6", "fd04::1", "", ""},
		{"GATEWAY_ADDR", "10.3.0.0/24", "this is no plain address", gatewayHint},
		{"GATEWAY_ADDR6", "router", "this is no plain address", gatewayHint},
		{"MIRROR_ADDR", "fd04::1", "this is no inet address", mirrorHint},
		{"MIRROR_ADDR6", "::ffff:10.4.0.1", "no other host reaches it by its routes", mirrorHint},
		{"MIRROR_ADDR6", "10.4.0.1", "this is no inet6 address", mirrorHint},
		{"GATEWAY_ADDR6", "fd03::1%em1", "no other host reaches it by its routes", gatewayHint},
		{"GATEWAY_ADDR6", "fe80::1", "no other host reaches it by its routes", gatewayHint},
		{"MIRROR_ADDR", "127.0.0.1", "no other host reaches it by its routes", mirrorHint},
		{"MIRROR_ADDR", "0.0.0.0", "no other host reaches it by its routes", mirrorHint},
		{"MIRROR_ADDR", "224.0.0.1", "no other host reaches it by its routes", mirrorHint},
		{"GATEWAY_ADDR", "10.1.0.1", "LOCAL_ADDR has this address", gatewayHint},
		{"GATEWAY_ADDR6", "fd01::2", "REMOTE_ADDR6 has this address", gatewayHint},
		{"MIRROR_ADDR", "10.2.0.7", "FAKE_ADDR has this address", mirrorHint},
	} {
		getenv := func(name string) string { return map[string]string{c.name: c.value}[name] }
		all, err := secondNetworks(own, getenv)
		if c.err != "" {
			checkWrong(t, err, fmt.Sprintf("%s=%q: %s", c.name, c.value, c.err), "set "+c.name+" "+c.hint)
		} else {
			a := netip.MustParseAddr(c.value)
			want := map[pfconf.Family]matrix.Network{pfconf.Inet: {}, pfconf.Inet6: {}}
			if want[pfconf.FamilyOf(a)] = (matrix.Network{Mirror: a}); strings.HasPrefix(c.name, "GATEWAY") {
				want[pfconf.FamilyOf(a)] = matrix.Network{Gateway: a}
			}
			if err != nil || !maps.Equal(all, want) {
				t.Errorf("%s=%s: %+v, %v", c.name, c.value, all, err)
			}
		}
		checkWrong(t, strayAddresses(getenv), c.name+" is set and REMOTE_SSH is not", "unset the addresses")
	}
	_, err := secondNetworks(own, func(name string) string {
		return map[string]string{"GATEWAY_ADDR": "10.3.0.1", "MIRROR_ADDR": "10.3.0.1"}[name]
	})
	checkWrong(t, err, "GATEWAY_ADDR and MIRROR_ADDR are both 10.3.0.1", "docs/remote.md")
}
