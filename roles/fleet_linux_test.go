package roles_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/roles/host/sshtest"
	"pfdivert/roles/lab/labtest"
)

// fleet is a controller with Ansible, and hosts which it reaches by ssh. Each has a network, users
// and files of its own.
type fleet struct {
	controller *sshtest.Server
	hosts      map[string]*sshtest.Server
	was        map[string]string // state of the hosts before the play
}

// checkout is the folder of the source on the controller.
const checkout = "/home/pfdivert"

// fleetHosts are the hosts of the fleet. None has Python, web2 alone has sftp, and web1 runs no
// programs in /tmp.
var fleetHosts = map[string]sshtest.World{
	"web1.example.net": {Mounts: map[string]string{"/tmp": "mode=1777,noexec"}},
	"web2.example.net": {Config: "Subsystem sftp internal-sftp"},
	"broken":           {Opaque: true},
	"cut":              {},
	"shot":             {},
	"denied":           {},
	"small":            {Mounts: map[string]string{"/tmp": "mode=1777,size=8m"}},
	"strange":          {Uname: []string{"Linux", "m68k"}},
	"garbled":          {Mounts: map[string]string{"/mnt": "mode=755"}},
}

func startFleet(t *testing.T, hosts ...string) *fleet {
	t.Helper()
	if testing.Short() || raceDetector {
		t.Skip("the program under test is not this one")
	}
	labtest.Need(t)
	sshtest.NeedUsers(t)
	sshtest.Need(t, "/usr/bin/nsenter", "/usr/bin/tcsh", "/usr/sbin/nft")
	labtest.Programs(t, "ansible-playbook")
	f := &fleet{
		controller: sshtest.Start(t, sshtest.World{OwnNetwork: true, Run: []string{"/usr/bin/sleep", "infinity"}}),
		hosts:      map[string]*sshtest.Server{}, was: map[string]string{},
	}
	root(t, f.controller, "mkdir -p /root/.ssh "+checkout+"/dist "+checkout+"/contrib; ip link set lo up")
	if err := os.CopyFS(f.controller.Path(checkout+"/contrib/ansible"), os.DirFS("../contrib/ansible")); err != nil {
		t.Fatal(err)
	}
	f.copy(t, program(t), checkout+"/pfdivert")
	root(t, f.controller, "ln "+checkout+"/pfdivert "+checkout+"/dist/pfdivert-$(uname -s | tr L l)-"+
		"$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')")
	var known, config, names strings.Builder
	for _, name := range hosts {
		w := fleetHosts[name]
		w.OwnNetwork, w.Without = true, []string{"python3"}
		h := sshtest.Start(t, w)
		f.hosts[name] = h
		i := len(f.hosts)
		root(t, f.controller, fmt.Sprintf(`ip link add ether%[1]d type veth peer name ether0 netns %[2]d
			ip link set ether%[1]d addrgenmode none up
			ip addr add 10.77.%[1]d.1/24 dev ether%[1]d`, i, h.PID))
		root(t, h, fmt.Sprintf(`ip link set lo up
			ip link set ether0 addrgenmode none up
			ip addr add 10.77.%d.2/24 dev ether0`, i))
		f.copy(t, h.Key, "/root/.ssh/"+name)
		known.WriteString(h.KnownHosts(name))
		fmt.Fprintf(&names, "10.77.%d.2 %s\n", i, name)
		fmt.Fprintf(&config, "Host %s\n\tIdentityFile /root/.ssh/%[1]s\n", name)
	}
	// No route leads to the host that is away.
	names.WriteString("10.78.0.2 gone.example.net\n")
	f.write(t, "/etc/hosts", names.String())
	f.write(t, "/root/.ssh/config", config.String())
	f.write(t, "/root/.ssh/known_hosts", known.String())
	for name := range f.hosts {
		f.was[name] = f.state(t, name)
	}
	return f
}

func (f *fleet) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(f.controller.Path(name), []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

func (f *fleet) copy(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, to, string(b))
}

// command is a command line on the controller, in the checkout.
func (f *fleet) command(ctx context.Context, line string) *exec.Cmd {
	cmd := in(ctx, f.controller, nil, "sh", "-ec", "cd "+checkout+"\n"+line)
	cmd.Env = append(cmd.Env, "HOME=/root", "USER=root", "ANSIBLE_NOCOLOR=1", "LC_ALL=C.UTF-8")
	return cmd
}

// state is what a play might change on a host: packet filter, policy rules, routes, settings,
// files, namespaces and processes. ssh and sudo have files and processes of their own.
func (f *fleet) state(t *testing.T, name string) string {
	t.Helper()
	h := f.hosts[name]
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", h.PID))
	if err != nil {
		t.Fatal(err)
	}
	state := root(t, h, `nft list ruleset
		ip rule; ip -6 rule; ip netns list
		ip route show table all; ip addr show | grep -o 'inet .*'
		grep -rs . /proc/sys/net/ipv4 /proc/sys/net/ipv6 | sort
		find /run /tmp /var/tmp /root /home /etc | grep -v '^/run/sudo/' | sort`)
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		exe, _ := os.Readlink(d + "/exe")
		ns, _ := os.Readlink(d + "/ns/mnt")
		if ns == own && filepath.Base(exe) != "sshd" || strings.Contains(exe, "/pfdivert-fleet.") {
			line, _ := os.ReadFile(d + "/cmdline")
			state += fmt.Sprintf("process %s %q\n", exe, line)
		}
	}
	return state
}

// clean waits until all hosts are as they were.
func (f *fleet) clean(t *testing.T) {
	t.Helper()
	for name, was := range f.was {
		is := f.state(t, name)
		for end := time.Now().Add(putBack); is != was && time.Now().Before(end); is = f.state(t, name) {
			time.Sleep(20 * time.Millisecond)
		}
		for line := range strings.Lines(is) {
			if !strings.Contains(was, line) {
				t.Errorf("%s: new: %s", name, line)
			}
		}
		if len(is) < len(was) {
			t.Errorf("%s: something is gone:\n%s\nit was\n%s", name, is, was)
		}
	}
}

// kill waits until a run is under way on a host, whose agents are at work, and kills a process of
// its own: the run, or the nearest sshd above it.
func (f *fleet) kill(ctx context.Context, name string, ssh bool) error {
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", f.hosts[name].PID))
	if err != nil {
		return err
	}
	for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		agents, run := 0, 0
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, d := range dirs {
			line, _ := os.ReadFile(d + "/cmdline")
			if ns, _ := os.Readlink(d + "/ns/mnt"); ns != own || !bytes.Contains(line, []byte("pfdivert\x00")) {
				continue
			}
			if exe, _ := os.Readlink(d + "/exe"); filepath.Base(exe) != "pfdivert" {
				continue
			}
			switch args := strings.Split(string(line), "\x00"); args[1] {
			case "agent":
				agents++
			case "run":
				fmt.Sscan(filepath.Base(d), &run)
			}
		}
		if agents < 2 || run == 0 {
			continue
		}
		for exe := ""; ssh && filepath.Base(exe) != "sshd"; exe, _ = os.Readlink(fmt.Sprintf("/proc/%d/exe", run)) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", run))
			if err != nil {
				return err
			}
			_, behind, _ := bytes.Cut(stat, []byte(") "))
			if _, err := fmt.Sscanf(string(behind[2:]), "%d", &run); err != nil || run < 2 {
				return fmt.Errorf("no sshd above the run on %s: %v", name, err)
			}
		}
		p, err := os.FindProcess(run)
		if err != nil {
			return err
		}
		return p.Kill()
	}
	return fmt.Errorf("no run was under way on %s", name)
}

// play runs a command line on the controller and returns what it printed and its exit status.
func (f *fleet) play(t *testing.T, line string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := f.command(ctx, line)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// recap is a host's numbers in the last lines of a play: ok, unreachable, failed and so on.
func recap(t *testing.T, out, host string) map[string]string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + host + ` +: (.*)$`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no recap of %s:\n%s", host, out)
	}
	counts := map[string]string{}
	for _, word := range strings.Fields(m[1]) {
		k, v, _ := strings.Cut(word, "=")
		counts[k] = v
	}
	return counts
}

// TestFleet runs the playbook of contrib/ansible on hosts of which one is broken, one is away, one
// refuses the password, one has no room, for one there is no program, for one it is not copied as
// it is, and of two the run or its connection is killed. It must fail, say why of each of these
// hosts, leave nothing on any, and merge the results of those that have some.
func TestFleet(t *testing.T) {
	f := startFleet(t, slices.Sorted(maps.Keys(fleetHosts))...)
	f.write(t, checkout+"/hosts", `
web1.example.net ansible_user=root
web2.example.net ansible_user=asked ansible_become=true ansible_become_password=`+sshtest.Secret+`
broken ansible_user=csh ansible_become=true
gone.example.net ansible_user=root
cut ansible_user=root pfdivert_run="-for 10m inet-args-tcp-to"
shot ansible_user=bash ansible_become=true pfdivert_run="-for 10m inet-args-tcp-to"
denied ansible_user=asked ansible_become=true ansible_become_password=wrong
small ansible_user=root
strange ansible_user=root
garbled ansible_user=root
`)
	root(t, f.hosts["garbled"], `cp /bin/cp /mnt/was; printf '#!/bin/sh\n/mnt/was "$@"\ntest -d "$2" || echo >>"$2"\n' >/mnt/cp
		chmod 755 /mnt/cp; mount -n --bind /mnt/cp "$(readlink -f /bin/cp)"`)
	// A play that was killed three days ago left a folder, another one is under way.
	root(t, f.hosts["web2.example.net"], `cd /tmp; mkdir pfdivert-fleet.old pfdivert-fleet.new
		chown asked pfdivert-fleet.old pfdivert-fleet.new; touch -d '3 days ago' pfdivert-fleet.old`)
	killed := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { killed <- f.kill(ctx, "cut", true) }()
	go func() { killed <- f.kill(ctx, "shot", false) }()
	out, status := f.play(t, "ansible-playbook -f 10 -i hosts contrib/ansible/fleet.yml")
	cancel()
	for range 2 {
		if err := <-killed; err != nil {
			t.Error(err)
		}
	}
	if status != 2 {
		t.Errorf("exit status %d, want 2", status)
	}
	suite := strconv.Itoa(len(matrix.Targets()))
	for host, want := range map[string]string{
		"web1.example.net": suite + " targets: " + suite + " PASS",
		"web2.example.net": suite + " targets: " + suite + " PASS",
		"broken":           suite + ` targets: \d+ PASS, \d+ FAIL`,
		"small":            suite + " targets: " + suite + " PASS",
		"gone.example.net": `ERROR gone.example.net: gone.example.net/run.json: Failed to connect to the host via ssh: `,
		"cut":              "ERROR cut: ", "shot": "ERROR shot: ",
		"denied":  "ERROR denied: denied/run.json: Undo what killed runs left: Incorrect sudo password",
		"strange": "ERROR strange: strange/run.json: Copy what make dist built for it: .*/dist/pfdivert-linux-m68k",
		"garbled": "ERROR garbled: garbled/run.json: Compare the sha256 of the copy: [0-9a-f]{64} ",
	} {
		good := strings.HasPrefix(host, "web") || host == "small"
		if got := recap(t, out, host); got["failed"] != map[bool]string{true: "0", false: "1"}[good] {
			t.Errorf("recap of %s: %v", host, got)
		}
		if !regexp.MustCompile(`"(` + host + `: )?` + want).MatchString(out) {
			t.Errorf("%s is not said to be %q", host, want)
		}
	}
	results := f.controller.Path(checkout + "/results")
	page, err := os.ReadFile(results + "/report.html")
	for _, want := range []string{"gone.example.net", "Incorrect sudo password", "6 hosts lack results"} {
		if err != nil || !bytes.Contains(page, []byte(want)) {
			t.Errorf("the page does not say %q: %v", want, err)
		}
	}
	var merged struct {
		Targets []struct{ Name, Host, Verdict string }
	}
	text, err := os.ReadFile(results + "/report.json")
	if err = errors.Join(err, json.Unmarshal(text, &merged)); err != nil {
		t.Error(err)
	}
	count := map[string]int{}
	for _, target := range merged.Targets {
		count[target.Host+" "+target.Verdict]++
	}
	for _, host := range []string{"web1.example.net", "web2.example.net", "small"} {
		if n := count[host+" PASS"]; n != len(matrix.Targets()) {
			t.Errorf("merged: %s has %d PASS", host, n)
		}
	}
	if n := count["broken FAIL"]; n < 50 || n+count["broken PASS"] != len(matrix.Targets()) {
		t.Errorf("merged: broken has %d FAIL, %d PASS", n, count["broken PASS"])
	}
	// The evidence is of what failed alone.
	for target, want := range map[string]bool{"inet-args-tcp-to": true, "inet-args-udp-packet-in": false} {
		_, err := os.Stat(results + "/broken/targets/" + target + "/evidence.txt")
		if (err == nil) != want {
			t.Errorf("evidence of %s: %v", target, err)
		}
	}
	if strings.Contains(out, "pfdivert run -json") || !strings.Contains(out, "hint: fix what is said of these hosts") {
		t.Error("the hint does not fit a play")
	}
	// What check-setup's play says of hosts that could not be looked at is a line for each.
	looked, _ := f.play(t, "ansible-playbook -i hosts contrib/ansible/fleet.yml --tags check-setup "+
		"--limit 'gone*:denied:web1*'")
	for host, why := range map[string]string{
		"gone.example.net": "Failed to connect to the host via ssh: ", "denied": ".*Incorrect sudo password",
	} {
		if !regexp.MustCompile(`(?m)^ *"` + host + `/check-setup.txt:` + why + `.*",?$`).MatchString(looked) {
			t.Errorf("check-setup does not say %q of %s in a line:\n%s", why, host, looked)
		}
	}
	if strings.Contains(looked, "error\\") {
		t.Errorf("check-setup says why in JSON:\n%s", looked)
	}
	root(t, f.hosts["web2.example.net"], "rmdir /tmp/pfdivert-fleet.new")
	f.clean(t)
	if t.Failed() {
		t.Logf("status %d\n%s", status, out)
	}
}

// TestFleetPage types what contrib/ansible/README.md has a newcomer type, whose two hosts are those
// of the inventory's example, and what its table adds.
func TestFleetPage(t *testing.T) {
	f := startFleet(t, "web1.example.net", "web2.example.net")
	const dir = checkout + "/contrib/ansible"
	root(t, f.controller, "sed -i s/=admin/=csh/ "+dir+"/inventory.example")
	page := pages(t)["../contrib/ansible/README.md"]
	typed := ""
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(page, -1) {
		for line := range strings.Lines(block[1]) {
			// The packages are installed and the program is built.
			if !strings.HasPrefix(line, "sudo apt-get ") && !strings.HasPrefix(line, "make") {
				typed += line
			}
		}
	}
	play := strings.TrimSpace(typed[strings.Index(typed, "ansible-playbook "):])
	for _, c := range []struct {
		name, line string
		ran        int    // hosts
		printed    string // a pattern
		after      string // a command in the folder of the results, which succeeds
	}{
		{"page", typed, 2, fmt.Sprintf(`%d targets on 2 hosts: `, 2*len(matrix.Targets())),
			`test -s report.html -a -s report.xml -a -s report.json -a -s report.txt
			for h in web1 web2; do test -s $h.example.net/run.json -a -s $h.example.net/junit.xml; done`},
		{"check-setup", play + " --tags check-setup", 2,
			`"no host lacks anything"`, `grep -q '^  ok  privilege: root' web1.example.net/check-setup.txt
			test ! -e report.html`},
		{"doctor", play + " --tags doctor", 2, `"web2\.example\.net: doctor found no problem"`,
			"test -s web2.example.net/doctor.json -a -s report.html"},
		{"some", play + ` --limit web1.example.net -e "pfdivert_run='-count 10 inet-args-udp-*'"`, 1,
			`: 5 targets: 5 PASS`, "grep -q '^50 cells of 5 targets: 50 PASS' web1.example.net/report.txt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, status := f.play(t, c.line)
			passed := regexp.MustCompile(`(?m)^web\d\.example\.net +: .* failed=0 `).FindAllString(out, -1)
			if len(passed) != c.ran || status != 0 || !regexp.MustCompile(c.printed).MatchString(out) {
				t.Errorf("%s: status %d\n%s", c.line, status, out)
			}
			root(t, f.controller, "cd "+checkout+"/results; "+c.after)
			f.clean(t)
		})
	}
	for name, line := range map[string]string{
		"lines":  "test $(wc -l <fleet.yml) -le 80",
		"syntax": "ansible-playbook --syntax-check -i inventory.example fleet.yml",
		// raw, as the hosts have no Python; one report of all, which takes the strategy linear; and
		// keys that tasks share, which for the linter come before the name.
		"lint": "ansible-lint --offline -x no-changed-when,run-once,deprecated-command-syntax,key-order fleet.yml",
	} {
		t.Run(name, func(t *testing.T) {
			if name == "lint" {
				labtest.Programs(t, "ansible-lint")
			}
			if out, status := f.play(t, "cd "+dir+"; "+line); status != 0 {
				t.Errorf("%s: status %d\n%s", line, status, out)
			}
		})
	}
}
