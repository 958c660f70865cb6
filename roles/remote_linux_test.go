package roles_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/pfconf"
	"pfdivert/roles/host/sshtest"
	"pfdivert/roles/lab/labtest"
)

func init() { sshtest.Main() }

// network is LOCAL and REMOTE, each with a network, users and files of its own,
// and sshd on REMOTE. On LOCAL a user without privilege runs the program.
type network struct {
	local, remote *sshtest.Server
	program       string
	was           string // state of both hosts before the first run
}

// The user on LOCAL, who has sudo(8) without password, and their home. Theirs
// are the program, the key and the configurations of ssh.
const (
	caller = "bash"
	home   = "/home/" + caller
)

// sshConfig is for ssh on LOCAL; "slow" takes 25 ms in each direction.
const sshConfig = `IdentityFile ` + home + `/id
IdentitiesOnly yes
UserKnownHostsFile ` + home + `/known_hosts
GlobalKnownHostsFile none
Host slow
	HostName 10.77.1.2
	HostKeyAlias 10.77.1.2
	ProxyCommand ` + sshtest.Program + ` delay 10.77.1.2:22 25ms
`

// startNetwork joins two hosts. LOCAL gets no route to FAKE: runs add it.
func startNetwork(t testing.TB) *network {
	t.Helper()
	labtest.Need(t)
	sshtest.NeedUsers(t)
	sshtest.Need(t, "/usr/bin/nsenter", "/usr/bin/tcsh", "/usr/sbin/nft")
	n := &network{
		local:   sshtest.Start(t, sshtest.World{OwnNetwork: true, Run: []string{"/usr/bin/sleep", "infinity"}}),
		remote:  sshtest.Start(t, sshtest.World{OwnNetwork: true}),
		program: home + "/pfdivert",
	}
	id, err := os.ReadFile(n.remote.Key)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	uid, err := sshtest.UID(caller)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"id": id, "known_hosts": []byte(n.remote.KnownHosts("10.77.1.2")), "ssh_config": []byte(sshConfig),
		"pfdivert": exe,
	} {
		path := n.local.Path(home + "/" + name)
		if err := os.WriteFile(path, b, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, sshtest.GID); err != nil {
			t.Fatal(err)
		}
	}
	root(t, n.local, fmt.Sprintf("ip link add ether0 type veth peer name ether0 netns %d", n.remote.PID))
	for i, h := range []*sshtest.Server{n.local, n.remote} {
		// Without addresses of its own making, which come and go at their own pace.
		root(t, h, fmt.Sprintf(`ip link set ether0 addrgenmode none
			ip link set lo up
			ip link set ether0 up
			ip addr add 10.77.1.%[1]d/24 dev ether0
			ip addr add fd00:77:1::%[1]d/64 dev ether0 nodad`, i+1))
	}
	n.settle(t)
	n.was = n.state(t)
	return n
}

// settle waits until the kernel has made the routes of a link that is up: it does so after the
// commands have ended, and what it makes later would be taken for a run's.
func (n *network) settle(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(putBack); ; time.Sleep(5 * time.Millisecond) {
		routes := ""
		for _, h := range []*sshtest.Server{n.local, n.remote} {
			routes += root(t, h, "ip route show table all; ip -6 route show table all")
		}
		if !strings.Contains(routes, "linkdown") && strings.Contains(routes, "local fd00:77:1::1 ") &&
			strings.Contains(routes, "local fd00:77:1::2 ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the link between the hosts did not come up:\n%s", routes)
		}
	}
}

// in is a command on a host, as root unless enter, options of nsenter(1), say otherwise.
func in(ctx context.Context, h *sshtest.Server, enter []string, args ...string) *exec.Cmd {
	all := append([]string{"-t", fmt.Sprint(h.PID), "-m", "-n"}, enter...)
	cmd := exec.CommandContext(ctx, "nsenter", append(append(all, "--"), args...)...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// root has root run a script on a host and gives what it says.
func root(t testing.TB, h *sshtest.Server, script string) string {
	t.Helper()
	out, err := in(context.Background(), h, nil, "sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// command is the program on LOCAL, started by the user without privilege.
func (n *network) command(t testing.TB, env []string, args ...string) *exec.Cmd {
	t.Helper()
	uid, err := sshtest.UID(caller)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := in(ctx, n.local, []string{"-S", fmt.Sprint(uid), "-G", fmt.Sprint(sshtest.GID)},
		append([]string{n.program}, args...)...)
	cmd.Env = append(append(cmd.Env, "USER="+caller, "HOME="+home, "SUDO=sudo", "SSH_OPTIONS=-F "+home+"/ssh_config",
		"LOCAL_ADDR=10.77.1.1", "REMOTE_ADDR=10.77.1.2", "FAKE_ADDR=10.77.2.0/24",
		"LOCAL_ADDR6=fd00:77:1::1", "REMOTE_ADDR6=fd00:77:1::2", "FAKE_ADDR6=fd00:77:2::/64"), env...)
	return cmd
}

// run runs the program to its end and gives what it says and its exit status.
func (n *network) run(t testing.TB, env []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := n.command(t, env, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("%q %q: %v\n%s%s", env, args, err, out.String(), errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// mustPass runs all targets and wants PASS of each, nothing else, and nothing left.
func (n *network) mustPass(t testing.TB, env []string, args ...string) time.Duration {
	t.Helper()
	began := time.Now()
	stdout, stderr, status := n.run(t, env, append([]string{"run"}, args...)...)
	took := time.Since(began)
	passed := regexp.MustCompile(`(?m)^PASS inet6?-[-a-z]+$`).FindAllString(stdout, -1)
	slices.Sort(passed)
	suite := len(matrix.Targets())
	if different := len(slices.Compact(passed)); status != 0 || different != suite ||
		strings.Count(stdout, "\n") != suite+1 ||
		!strings.Contains(stdout, fmt.Sprintf("\n%d targets: %d PASS in ", suite, suite)) || stderr != "" {
		t.Errorf("%q %q: status %d, %d PASS\n%s%s", env, args, status, different, stdout, stderr)
	}
	n.clean(t)
	return took
}

// state is what a run changes on a host: packet filter, routes, sysctls, files.
// What is kept for later runs is not looked at.
func (n *network) state(t testing.TB) string {
	t.Helper()
	const script = `nft list ruleset
		ip rule; ip -6 rule
		ip route show table all; ip -6 route show table all
		ip addr show | grep -o 'inet.*'
		grep -rs . /proc/sys/net/ipv4 /proc/sys/net/ipv6 | sort
		find /run/pfdivert /tmp /var/tmp /root /home /etc | grep -v '/\.cache\(/pfdivert.*\)\?$' | sort`
	// What find says of a folder that is not there is part of it.
	return "local:\n" + root(t, n.local, script) + "remote:\n" + root(t, n.remote, script)
}

// processes are those in the networks of both hosts, but for the two with which they began.
func (n *network) processes(t testing.TB) (all []string) {
	t.Helper()
	for _, h := range []*sshtest.Server{n.local, n.remote} {
		own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.PID))
		if err != nil {
			t.Fatal(err)
		}
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, d := range dirs {
			if ns, _ := os.Readlink(d + "/ns/net"); ns == own && d != fmt.Sprintf("/proc/%d", h.PID) {
				line, _ := os.ReadFile(d + "/cmdline")
				all = append(all, fmt.Sprintf("%s %q", d, line))
			}
		}
	}
	return all
}

// putBack bounds how long after the death of an orchestrator its agents may take:
// they wait for its sign of life as long.
const putBack = 20 * time.Second

// clean waits until everything is put back on both hosts.
func (n *network) clean(t testing.TB) {
	t.Helper()
	var is string
	var left []string
	for end := time.Now().Add(putBack); ; time.Sleep(20 * time.Millisecond) {
		if left = n.processes(t); len(left) == 0 {
			if is = n.state(t); is == n.was {
				return
			}
		}
		if time.Now().After(end) {
			break
		}
	}
	before := strings.Split(n.was, "\n")
	after := strings.Split(is, "\n")
	without := func(all, of []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(l string) bool { return slices.Contains(of, l) })
	}
	t.Errorf("left behind: processes %q; new %q; gone %q", left, without(after, before), without(before, after))
}

// All targets from a user without privilege, over ssh, with the program that is
// built for use, to a host on which nothing is installed.
func TestRemote(t *testing.T) {
	n := startNetwork(t)
	csh := []string{"REMOTE_SSH=csh@10.77.1.2"}
	t.Run("csh that makes noise", func(t *testing.T) { n.mustPass(t, csh) })
	// The program is in a folder that only its user may enter.
	t.Run("superuser", func(t *testing.T) {
		stdout, stderr, status := n.run(t, csh, "run", "*-superuser")
		if status != 0 || !strings.Contains(stdout, "2 targets: 2 PASS") || stderr != "" {
			t.Errorf("status %d\n%s%s", status, stdout, stderr)
		}
	})
	if testing.Short() || raceDetector {
		return
	}
	const kept = "/home/csh/.cache/pfdivert/*/*"
	t.Run("root", func(t *testing.T) { n.mustPass(t, []string{"REMOTE_SSH=root@10.77.1.2"}) })
	t.Run("one FAKE", func(t *testing.T) {
		n.mustPass(t, append(csh, "FAKE_ADDR=10.77.2.9", "FAKE_ADDR6=fd00:77:2::9"))
	})
	if files := n.remote.Files(t, kept); len(files) != 0 {
		t.Errorf("kept without -keep: %q", files)
	}
	t.Run("cached", func(t *testing.T) {
		n.mustPass(t, csh, "-keep")
		first := n.inode(t, kept)
		took := n.mustPass(t, csh, "-keep")
		t.Log(took)
		if second := n.inode(t, kept); second != first {
			t.Errorf("the program was sent again: inode %d, then %d", first, second)
		}
	})
	t.Run("cached, slow", func(t *testing.T) {
		took := n.mustPass(t, []string{"REMOTE_SSH=csh@slow"}, "-keep")
		t.Log(took)
		if took > 15*time.Second {
			t.Errorf("%v at 50 ms round-trip time", took)
		}
	})
	t.Run("filters", func(t *testing.T) { n.filters(t, csh) })
	t.Run("killed", func(t *testing.T) { n.killed(t, csh) })
	t.Run("check-setup", func(t *testing.T) { n.checkSetup(t) })
	t.Run("beyond", func(t *testing.T) { n.beyond(t) })
}

// filters runs all targets with each filter, all of them as the command line says and one as a
// hosts file does. Nothing is left of any.
func (n *network) filters(t *testing.T, env []string) {
	stdout, stderr, status := n.run(t, env, "run", "-filter", "all", "*")
	for _, e := range []pfconf.Engine{pfconf.NFT, pfconf.XT, pfconf.XTLegacy} {
		passed := regexp.MustCompile(`(?m)^` + string(e) + `: \d+ targets: \d+ PASS(, \d+ XFAIL)?, \d+ SKIP$`)
		if !passed.MatchString(stdout) {
			t.Errorf("not all passed with %s", e)
		}
	}
	if status != 0 || stderr != "-filter all: without bpf and bpf-lookup, which make pfdivert-bpf builds in\n" || t.Failed() {
		t.Errorf("status %d\n%s%s", status, stdout, stderr)
	}
	n.clean(t)
	file := home + "/hosts"
	if err := os.WriteFile(n.local.Path(file), []byte("csh@10.77.1.2 filter=xt-legacy\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, status = n.run(t, nil, "run", "-hosts", file, "-json", "-", "*-args-*")
	if status != 0 || !strings.Contains(stdout, `"filter":"xt-legacy"`) {
		t.Errorf("a hosts file's filter: status %d\n%s%s", status, stdout, stderr)
	}
	if err := os.Remove(n.local.Path(file)); err != nil {
		t.Fatal(err)
	}
	n.clean(t)
}

// TestRemoteEvidence: a rule of REMOTE's own drops what LOCAL sends, and the run over ssh tells
// what both hosts show of that, with the packet on REMOTE's interface.
func TestRemoteEvidence(t *testing.T) {
	n := startNetwork(t)
	root(t, n.remote, `nft add table ip own
		nft add chain ip own early '{ type filter hook prerouting priority -300; }'
		nft add rule ip own early ip daddr 10.77.2.0/24 udp dport '>' 0 counter drop`)
	const target = "inet-args-udp-to"
	stdout, stderr, status := n.run(t, []string{"REMOTE_SSH=root@10.77.1.2"}, "run", "-o", home+"/out", target)
	if status != 1 || !strings.Contains(stdout, "FAIL "+target) {
		t.Fatalf("status %d\n%s%s", status, stdout, stderr)
	}
	text, err := os.ReadFile(n.local.Path(home + "/out/" + target + "/evidence.txt"))
	if err != nil {
		t.Fatal(err)
	}
	local, remote, _ := strings.Cut(string(text), "== REMOTE")
	for _, want := range []string{" out ether0 UDP, 7 bytes  10.77.1.1:", "# ip route get 10.77.2."} {
		if !strings.Contains(local, want) {
			t.Errorf("LOCAL's evidence has no %q:\n%s", want, local)
		}
	}
	for _, want := range []string{" in  ether0 UDP, 7 bytes  10.77.1.1:", "after:  matched 0, done 0",
		"table ip own chain early"} {
		if !strings.Contains(remote, want) {
			t.Errorf("REMOTE's evidence has no %q:\n%s", want, remote)
		}
	}
	if strings.Contains(string(text), "Not known") {
		t.Errorf("something is not known:\n%s", text)
	}
	for _, host := range []string{"local", "remote"} {
		if b, err := os.ReadFile(n.local.Path(home + "/out/" + target + "/" + host + ".pcapng")); err != nil ||
			!strings.Contains(string(b), "Client\n") {
			t.Errorf("%s's capture: %v, %d bytes", host, err, len(b))
		}
	}
}

// inode returns that of the only file on REMOTE that matches.
func (n *network) inode(t testing.TB, pattern string) uint64 {
	t.Helper()
	files := n.remote.Files(t, pattern)
	if len(files) != 1 {
		t.Fatalf("%s: %q", pattern, files)
	}
	i, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return i.Sys().(*syscall.Stat_t).Ino
}

// killed kills the orchestrator amid its targets.
func (n *network) killed(t *testing.T, env []string) {
	cmd := n.command(t, env, "run", "-for", "1m")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); !strings.Contains(root(t, n.remote, "nft list ruleset"),
		"tproxy"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("no rule was loaded\n%s", out.String())
		}
	}
	if n.state(t) == n.was || len(n.processes(t)) < 4 {
		t.Error("nothing is there that could be put back")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	// The folder of ssh's socket outlives its owner: the next run removes it
	// when it is a minute old.
	root(t, n.local, "rm -rf /tmp/pfdivert-ssh-*")
	began := time.Now()
	n.clean(t)
	t.Log("put back within ", time.Since(began))
}

// checkSetup has it find that all is well, and what is not.
func (n *network) checkSetup(t *testing.T) {
	const fake = "ip addr %s 10.77.2.9/32 dev lo"
	for _, c := range []struct {
		name, role, env string
		before          string // on REMOTE, undone by after
		after           string
		status          int
		stdout, stderr  string
	}{
		{"well", "check-setup", "", "", "", 0, `^local: (.*\n  ok )+.*\nremote: (.*\n  ok )+.*\n$`, `^$`},
		{"FAKE on REMOTE", "check-setup", "", fmt.Sprintf(fake, "add"), fmt.Sprintf(fake, "del"), 2,
			`\n  NO  FAKE must be unassigned: .*10\.77\.2\.9.*\n +fix: `, `^$`},
		{"run with FAKE on REMOTE", "run", "", fmt.Sprintf(fake, "add"), fmt.Sprintf(fake, "del"), 2,
			`^$`, `^error: remote: FAKE .*10\.77\.2\.9.*\nhint: `},
		{"run with a wrong REMOTE_ADDR", "run", "REMOTE_ADDR=10.77.1.9", "", "", 2, `^$`,
			`^error: remote: inet address: no interface of this host has 10\.77\.1\.9\n(.*\n)*` +
				`hint: correct REMOTE_ADDR, or give 10\.77\.1\.9 to an interface of that host\n`},
		{"run without IPv6 on REMOTE", "run", "", "sysctl -qw net.ipv6.conf.ether0.disable_ipv6=1",
			"sysctl -qw net.ipv6.conf.ether0.disable_ipv6=0; ip addr add fd00:77:1::2/64 dev ether0 nodad", 2, `^$`,
			`^error: remote: inet6 address: no interface of this host has fd00:77:1::2\n(.*\n)*` +
				`hint: correct REMOTE_ADDR6, `},
		{"no right", "check-setup", "REMOTE_SSH=norights@10.77.1.2", "", "", 2, `^$`,
			`^error: (.*\n)+hint: .*norights`},
		{"run without right", "run", "REMOTE_SSH=norights@10.77.1.2", "", "", 2, `^$`,
			`^error: (.*\n)+hint: .*norights`},
		{"no sudo", "check-setup", "SUDO=", "", "", 2, `^$`, `^error: (.*\n)+hint: .*SUDO`},
	} {
		t.Run(c.name, func(t *testing.T) {
			root(t, n.remote, c.before)
			stdout, stderr, status := n.run(t, []string{"REMOTE_SSH=csh@10.77.1.2", c.env}, c.role)
			root(t, n.remote, c.after)
			if status != c.status || !regexp.MustCompile(c.stdout).MatchString(stdout) ||
				!regexp.MustCompile(c.stderr).MatchString(stderr) {
				t.Errorf("status %d, stdout\n%s\nstderr\n%s", status, stdout, stderr)
			}
			n.clean(t)
		})
	}
}

// beyond names a second network and a third host, which is an address of REMOTE's here. LOCAL is
// looked at and gets a route to the third host, which goes with the run; a run of targets that need
// neither does not depend on them.
func (n *network) beyond(t *testing.T) {
	root(t, n.local, fmt.Sprintf(`ip link add ether1 type veth peer name ether1 netns %d
		ip link set ether1 up
		ip addr add 10.77.3.1/24 dev ether1
		ip addr add fd00:77:3::1/64 dev ether1 nodad`, n.remote.PID))
	root(t, n.remote, "ip link set ether1 up; ip addr add 10.77.4.1/32 dev lo; ip addr add fd00:77:4::1/128 dev lo")
	for _, c := range []struct {
		name, args, env string
		before, after   string // on LOCAL
		status          int
		want            []string // how lines of what it prints begin
	}{
		{"check-setup", "check-setup", "", "", "", 0, []string{"  ok  inet second network: 10.77.3.1 on ether1",
			"  ok  inet6 second network: fd00:77:3::1 on ether1",
			"  ok  route to the third host 10.77.4.1: none yet: the run adds one via 10.77.1.2 and removes it",
			"  ok  route to the third host fd00:77:4::1: none yet: the run adds one via fd00:77:1::2 and removes it"}},
		{"an own route", "check-setup", "", "ip route add 10.77.4.0/24 via 10.77.1.2", "ip route del 10.77.4.0/24", 0,
			[]string{"  ok  route to the third host 10.77.4.1: via 10.77.1.2",
				"  ok  inet third host answers: 10.77.4.1"}},
		{"a silent third host", "check-setup", "MIRROR_ADDR=10.77.4.9",
			"ip route add 10.77.4.9 via 10.77.1.2", "ip route del 10.77.4.9", 0,
			[]string{"  warn  inet third host answers: fence to 10.77.4.9: no answer to 40 echo requests in 2s",
				"      fix: ping -I 10.77.1.1 10.77.4.9, let REMOTE forward, and give the third host a route to LOCAL via "}},
		{"no such gateway", "check-setup", "GATEWAY_ADDR=10.77.3.9", "", "", 2,
			[]string{"  NO  inet second network: no interface of this host has 10.77.3.9",
				"      fix: correct GATEWAY_ADDR, or give 10.77.3.9 to an interface of that host"}},
		{"one network", "check-setup", "GATEWAY_ADDR6=fd00:77:1::9", "ip addr add fd00:77:1::9/64 dev ether0 nodad",
			"ip addr del fd00:77:1::9/64 dev ether0", 2,
			[]string{"  NO  inet6 second network: fd00:77:1::9 is on ether0, as LOCAL's address is"}},
		{"strict", "check-setup", "", "sysctl -qw net.ipv4.conf.ether1.rp_filter=1",
			"sysctl -qw net.ipv4.conf.ether1.rp_filter=0", 2,
			[]string{"      fix: sysctl -w net.ipv4.conf.ether1.rp_filter=2"}},
		{"a run", "run inet-divert-forwarded inet6-divert-pf-reply-to", "", "", "", 0, []string{
			"2 targets: 2 SKIP in"}},
		{"a run with another route", "run inet-divert-forwarded", "", "ip route add 10.77.4.1 via 10.77.1.9",
			"ip route del 10.77.4.1", 2, []string{
				"error: local: route to the third host 10.77.4.1: this host has a route to 10.77.4.1/32 via " +
					"10.77.1.9; it must be via REMOTE 10.77.1.2",
				"hint: remove that route, or choose another address"}},
		{"a run that needs none", "run inet-args-tcp-to", "GATEWAY_ADDR=10.77.3.9",
			"ip route add 10.77.4.1 via 10.77.1.9", "ip route del 10.77.4.1", 0, []string{"PASS inet-args-tcp-to"}},
		{"no address", "run inet-args-tcp-to", "MIRROR_ADDR=pfhost", "", "", 2, []string{
			`error: MIRROR_ADDR="pfhost": this is no plain address`,
			"hint: set MIRROR_ADDR to a third host behind another interface of REMOTE's, or unset it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root(t, n.local, c.before)
			was := root(t, n.local, "ip route; ip -6 route")
			env := []string{"REMOTE_SSH=csh@10.77.1.2", "GATEWAY_ADDR=10.77.3.1", "GATEWAY_ADDR6=fd00:77:3::1",
				"MIRROR_ADDR=10.77.4.1", "MIRROR_ADDR6=fd00:77:4::1", c.env}
			stdout, stderr, status := n.run(t, env, strings.Fields(c.args)...)
			if is := root(t, n.local, "ip route; ip -6 route"); is != was {
				t.Errorf("routes before\n%s\nand after\n%s", was, is)
			}
			root(t, n.local, c.after)
			for _, line := range c.want {
				if !strings.Contains("\n"+stdout+stderr, "\n"+line) {
					t.Errorf("no line %q", line)
				}
			}
			if status != c.status || t.Failed() {
				t.Errorf("status %d, stdout\n%s\nstderr\n%s", status, stdout, stderr)
			}
		})
	}
	root(t, n.remote, "ip addr del 10.77.4.1/32 dev lo; ip addr del fd00:77:4::1/128 dev lo")
	root(t, n.local, "ip link del ether1")
	n.clean(t)
}

// BenchmarkRemote times the whole process, from its start to its end, with the
// program kept on REMOTE.
func BenchmarkRemote(b *testing.B) {
	n := startNetwork(b)
	for _, c := range []struct{ name, destination string }{{"cached", "csh@10.77.1.2"}, {"50ms", "csh@slow"}} {
		b.Run(c.name, func(b *testing.B) {
			env := []string{"REMOTE_SSH=" + c.destination}
			run := func() {
				if stdout, stderr, status := n.run(b, env, "run", "-keep"); status != 0 {
					b.Fatalf("status %d\n%s%s", status, stdout, stderr)
				}
			}
			run()
			for b.Loop() {
				run()
			}
		})
	}
}
