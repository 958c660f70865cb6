package twin

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pfdivert/roles/lab/labtest"
)

// A snapshot that root saved gives an ordinary user the same problems, also where rules ask for
// owners of sockets, of which the user has one.
func TestSameProblemsAsUser(t *testing.T) {
	if file := os.Getenv("TWIN_TEST_PROBLEMS"); file != "" {
		problemsOf(t, file)
		return
	}
	labtest.Root(t)
	labtest.NeedUsers(t)
	owned := func(s BoundSocket, uid uint32) BoundSocket { s.UID = uid; return s }
	const redirect = `
iptables -t nat -A OUTPUT -p tcp -m owner --uid-owner 1337 -j RETURN
iptables -t nat -A OUTPUT -p tcp ! -d 10.0.0.0/8 -j REDIRECT --to-ports 12345`
	const marks = `
iptables -t mangle -A PREROUTING -i lo -p tcp -m mark --mark 1 -j TPROXY --on-port 7895 --tproxy-mark 1
nft add table ip own
nft add chain ip own out '{ type route hook output priority mangle; }'
nft add rule ip own out meta skuid 1337 return
nft add rule ip own out ip daddr 10.0.0.0/8 return
nft add rule ip own out meta l4proto tcp meta mark set 1`
	proxy := socket("tcp", "0.0.0.0:7895", "transparent")
	for _, c := range []struct {
		name    string
		script  string
		sockets []BoundSocket
		want    string // in the problems
	}{
		{"redirect", redirect, []BoundSocket{owned(socket("tcp", "0.0.0.0:12345"), 1337)}, ""},
		{"redirect of the proxy's own", redirect, []BoundSocket{owned(socket("tcp", "0.0.0.0:12345"), 1338)}, "bad"},
		{"redirect to no one", redirect, nil, "bad"},
		{"tproxy of own", toLo + ofLan + marks, []BoundSocket{owned(proxy, 1337)}, "listener-reachable"},
		{"tproxy of the proxy's own", toLo + ofLan + marks, []BoundSocket{owned(proxy, 1338)}, "bad"},
		{"tproxy without transparent", toLo + ofLan, []BoundSocket{socket("tcp", "0.0.0.0:7895")}, "bad"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var file bytes.Buffer
			live := host(t, c.script+"\nip neigh add 10.91.1.55 lladdr 02:00:00:00:00:55 dev lan0", c.sockets)
			if err := live.Save(&file); err != nil {
				t.Fatal(err)
			}
			loaded, err := Load(bytes.NewReader(file.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			if a, b := Plan(live), Plan(loaded); !slices.Equal(a, b) {
				t.Errorf("%d flows are planned from the host, and from its snapshot %d others", len(a), len(b))
			}
			found, err := Diagnose(context.Background(), loaded, Options{})
			if err != nil {
				t.Fatal(err)
			}
			root := told(found)
			if !strings.Contains(root, c.want) || c.want == "" && strings.Contains(root, "bad") {
				t.Errorf("root is told\n%s, want %q in it", root, c.want)
			}
			mapped, err := loaded.Pseudonyms()
			if err != nil {
				t.Fatal(err)
			}
			if found, err = Diagnose(context.Background(), mapped, Options{}); err != nil {
				t.Fatal(err)
			}
			if kindsTold(root) != kindsTold(told(found)) {
				t.Errorf("root is told\n%s\nand with pseudonyms\n%s", root, told(found))
			}
			for _, uid := range []uint32{65534, 0} { // root has no privilege outside of a namespace either
				out := asUser(t, uid, file.Bytes(), "TestSameProblemsAsUser", "TWIN_TEST_PROBLEMS")
				_, user, ok := strings.Cut(out, "PROBLEMS\n")
				user, _, end := strings.Cut(user, "END\n")
				if !ok || !end || user != root {
					t.Errorf("root is told\n%s\nand user %d\n%s\n%s", root, uid, user, out)
				}
			}
		})
	}
}

// told are the problems of a diagnosis as lines.
func told(d *Diagnosis) string {
	var b strings.Builder
	for _, p := range d.Problems {
		fmt.Fprintf(&b, "%s %s: %s; fix: %s\n", p.Severity, p.Cause, p.What, p.Fix)
	}
	return b.String()
}

// kindsTold are the severities and kinds of problems, without what names addresses.
func kindsTold(told string) string {
	var b strings.Builder
	for line := range strings.Lines(told) {
		if first, _, ok := strings.Cut(line, ":"); ok && (strings.HasPrefix(first, "bad ") ||
			strings.HasPrefix(first, "warn ")) {
			b.WriteString(first + "\n")
		}
	}
	return b.String()
}

// problemsOf prints the problems of a snapshot's host, as a user in a user namespace.
func problemsOf(t *testing.T, file string) {
	if !Enclosed() {
		enclose(t)
		return
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := Load(f)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Diagnose(context.Background(), c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("PROBLEMS\n%sEND\n", told(d))
}

// asUser runs a test of this program as another user, with a file named in its environment.
func asUser(t *testing.T, uid uint32, file []byte, test, variable string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "twin")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Chmod(dir, 0o755), os.WriteFile(dir+"/snapshot", file, 0o644), os.WriteFile(dir+"/test", self, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(dir+"/test", "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+dir+"/snapshot")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	return string(out)
}

// enclose runs this test again in a user namespace.
func enclose(t *testing.T) {
	t.Helper()
	cmd, err := Enclose(context.Background(), os.Args[1:])
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}
