package twin

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// state is all that is known of a host: what is read of it, each file of /proc/sys/net, and what
// the kernel counted.
func state(t *testing.T, host *Netns) (*Snapshot, map[string]string) {
	t.Helper()
	all := map[string]string{}
	c, err := host.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.NFT {
		if m.Type&0xff == unix.NFT_MSG_NEWRULE {
			all["rules of nf_tables"] += fmt.Sprintf("%x\n", m.Data) // with counters
		}
	}
	all["devices"], all["addresses"] = fmt.Sprintf("%x", c.Dump.Links), fmt.Sprintf("%x", c.Dump.Addrs)
	all["routes"], all["policy rules"], all["iptables-legacy"] = fmt.Sprintf("%x", c.Dump.Routes),
		fmt.Sprintf("%x", c.Dump.Rules), fmt.Sprint(c.Legacy)
	if err := host.Do(func() error {
		for _, file := range []string{"/proc/modules", "/proc/thread-self/net/dev", "/proc/thread-self/net/snmp",
			"/proc/thread-self/net/snmp6",
			"/proc/thread-self/net/netstat", "/proc/thread-self/net/ip_tables_names",
			"/proc/thread-self/net/ip6_tables_names",
			"/proc/thread-self/net/nf_conntrack"} {
			if b, err := os.ReadFile(file); err == nil {
				all[file] = string(b)
			}
		}
		return filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
			// The count of connections is the machine's on old kernels.
			if err != nil || d.IsDir() || d.Name() == "nf_conntrack_count" {
				return err
			}
			if b, err := os.ReadFile(path); err == nil {
				all[path] = string(b)
			}
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return c, all
}

// quietHost is a host with rules that counts no packet by itself.
const quietHost = `
	sysctl -qw net.ipv6.conf.default.disable_ipv6=1
	ip link set lo up
	ip link add wan0 type veth peer name wan0x
	ip addr add 198.51.100.2/24 dev wan0
	ip link set wan0 up
	ip link set wan0x up
	ip route add default via 198.51.100.1
	ip rule add fwmark 1 lookup 100
	ip route add local 0.0.0.0/0 dev lo table 100
	ip6tables-legacy -t mangle -A PREROUTING -j ACCEPT
	nft -f testdata/replay/rules.nft
	ipset restore < testdata/replay/sets.ipset
`

// Reading and replaying changes nothing on the host and sends no packet there; and neither does a
// process that is killed in the middle, of which nothing stays.
func TestHostUnchanged(t *testing.T) {
	if os.Getenv("TWIN_TEST_LOOP") != "" {
		loop(t)
		return
	}
	host := newNetns(t)
	shell(t, host, quietHost)
	was, before := state(t, host)
	check := func(when string) {
		t.Helper()
		is, after := state(t, host)
		for _, d := range Compare(was, is) {
			t.Errorf("%s: %v", when, d)
		}
		for _, name := range slices.Sorted(maps.Keys(before)) {
			if before[name] != after[name] {
				t.Errorf("%s, %s was\n%s\nand is\n%s", when, name, before[name], after[name])
			}
		}
		if len(after) != len(before) {
			t.Errorf("%s, there are %d things to look at, and were %d", when, len(after), len(before))
		}
	}
	if before["/proc/thread-self/net/ip6_tables_names"] == "" {
		t.Error("the test sees no tables")
	}
	twinOf(t, host)
	check("after a twin")
	for _, kill := range []string{"read", "namespaces", "replayed"} {
		var cmd *exec.Cmd
		var out *bufio.Scanner
		if err := host.Do(func() error {
			cmd = exec.Command("/proc/self/exe", "-test.run=^TestHostUnchanged$")
			cmd.Env = append(os.Environ(), "TWIN_TEST_LOOP=1")
			pipe, err := cmd.StdoutPipe()
			if err != nil {
				return err
			}
			out = bufio.NewScanner(pipe)
			return cmd.Start()
		}); err != nil {
			t.Fatal(err)
		}
		seen := 0
		for out.Scan() {
			if seen += strings.Count(out.Text(), kill); seen == 2 {
				break
			}
		}
		if seen < 2 {
			t.Fatalf("the process ended before it was killed: %v", cmd.Wait())
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		check("killed after it printed " + kill)
	}
}

// loop makes twins until it is killed.
func loop(t *testing.T) {
	for {
		c, err := Read(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("read")
		inside, outside := newNetns(t), newNetns(t)
		fmt.Println("namespaces")
		if _, err := c.Replay(context.Background(), inside, outside); err != nil {
			t.Fatal(err)
		}
		fmt.Println("replayed")
		_, _ = inside.Close(), outside.Close()
	}
}
