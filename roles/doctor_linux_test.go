package roles

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pfdivert/roles/lab/labtest"
)

// doctorHost makes a host with a client's device and an uplink out of the namespace that it is run
// in; its other ends are in another.
const doctorHost = `set -e
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
ip link set lo up
unshare -n sleep 60 & far=$!
for i in $(seq 100); do [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/self/ns/net)" ] && break; sleep 0.1; done
ip link add lan0 type veth peer name lan-far netns $far
ip link add wan0 type veth peer name wan-far netns $far
nsenter -t $far -n ip link set lan-far up
nsenter -t $far -n ip link set wan-far up
ip addr add 192.168.1.1/24 dev lan0
ip addr add 198.51.100.2/24 dev wan0
ip link set lan0 up
ip link set wan0 up
ip route add default via 198.51.100.1
sysctl -qw net.ipv4.ip_forward=1
ip rule add fwmark 1 lookup 100
ip route add local default dev lo table 100
nft -f - <<'N'
table ip proxy {
	chain pre {
		type filter hook prerouting priority mangle;
		iifname "lan0" ip protocol tcp fib daddr type != local meta mark set 1 tproxy to :3128 accept
	}
	chain input {
		type filter hook input priority filter;
		tcp dport 3128 fib daddr type local reject with tcp reset
	}
}
N
`

const doctorProxy = "pfdivert server -proto tcp -diverted -timeout 60s -bind 0.0.0.0:3128 >said &\n" +
	"for i in $(seq 100); do grep -q . said && break; sleep 0.1; done\n"

// inHost runs a script in a host of doctorHost's, and returns what it prints and its exit status.
func inHost(t *testing.T, script string) (string, int) {
	t.Helper()
	labtest.Need(t)
	labtest.Programs(t, "nft", "ip", "sysctl", "nsenter", "unshare")
	labtest.Root(t)
	bin := program(t)
	cmd := exec.CommandContext(t.Context(), "timeout", "60", "unshare", "-n", "bash", "-c",
		doctorHost+script+"\nstatus=$?\nkill $(jobs -p)\nexit $status")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), asProgram+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestDoctor: the output's form, the exit status, and a snapshot that tells the same.
func TestDoctor(t *testing.T) {
	for _, c := range []struct {
		name, script string
		status       int
		wants        []string
	}{
		{"healthy", doctorProxy + "set +e; pfdivert doctor", 0, []string{"no problem found in "}},
		{"no policy rule", doctorProxy + "ip rule del fwmark 1; set +e; pfdivert doctor", 1,
			[]string{"1 problem\n", "\nbad   TCP of 192.168.1.", "fix:   ip rule add ", "fwmark 0x1 lookup 100"}},
		{"a warning alone", doctorProxy + "nft delete chain ip proxy input; set +e; pfdivert doctor", 0,
			[]string{"1 problem\n", "\nwarn  TCP of ", "check: ss -lntp 'sport = :3128'",
				"fix:   nft add table inet proxy-port"}},
		{"no rule diverts", "nft delete table ip proxy; set +e; pfdivert doctor", 0,
			[]string{"no rule diverts to a program; no problem found in "}},
		{"rules for no device", doctorProxy +
			"nft list ruleset | sed '1i flush ruleset\ns/lan0/lan9/' | nft -f -; set +e; pfdivert doctor", 0,
			[]string{"\nwarn  no flow meets what diverts: table ip proxy chain pre rule 1",
				"this host has no device lan9"}},
		{"rules reached by a jump from no device", doctorProxy + `nft -f - <<'N'
flush ruleset
table ip proxy {
	chain to { ip protocol tcp meta mark set 1 tproxy to :3128 accept
	}
	chain pre { type filter hook prerouting priority mangle; iifname "lan9" jump to
	}
}
N
set +e; pfdivert doctor`, 0, []string{"\nwarn  rules divert to a program, and no flow came to one"}},
		{"nothing can be run", doctorProxy + "ip link del lan0; ip link del wan0; set +e; pfdivert doctor 2>&1", 2,
			[]string{"error: ", "no flow could be run", "hint: ip -br addr"}},
		{"both ends of devices", doctorProxy + `ip link del lan0; ip link add lan0 type veth peer name lan-near; ip link set lan-near up; ip link set lan0 up; ip addr add 192.168.1.1/24 dev lan0
set +e; pfdivert doctor; pfdivert doctor -flow 'tcp 192.168.1.9 -> 203.0.113.7:80' 2>&1`, 2, []string{"1 problem\n", "lan0 is a veth whose other end, lan-near, is on this host too"}},
		{"verbose", doctorProxy + "set +e; pfdivert doctor -v", 0,
			[]string{"complete  tcp lan0 192.168.1.", ", chain pre"}},
		{"a flow", doctorProxy + "set +e; pfdivert doctor -flow 'tcp 192.168.1.77 -> 203.0.113.7:4711'", 0,
			[]string{"no problem found in ", "complete  tcp lan0 192.168.1.77 -> 203.0.113.7:4711", "got mark 0x1 by ",
				", chain pre"}},
		{"a trace", doctorProxy + "set +e; pfdivert doctor -trace 'tcp 192.168.1.77 -> 203.0.113.7:4711'", 0,
			[]string{"tcp lan0 192.168.1.77 -> 203.0.113.7:4711: complete", "SYN to 203.0.113.7:4711",
				"tproxy to :3128", "prerouting last: mark 0x1"}},
		{"not a flow", "set +e; pfdivert doctor -flow nonsense 2>&1", 2, []string{"error: ", "hint: "}},
		{"a page", doctorProxy + "pfdivert doctor -html page.html >/dev/null; set +e; cat page.html", 0,
			[]string{"<h1>no problem found in", `<ol class="way">`}},
		{"a snapshot", "pfdivert doctor -save host.pfd; ip rule del fwmark 1; set +e; pfdivert doctor host.pfd", 1,
			[]string{"nothing listens there"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, status := inHost(t, c.script)
			if status != c.status {
				t.Errorf("exit status %d, want %d", status, c.status)
			}
			for _, want := range c.wants {
				if !strings.Contains(out, want) {
					t.Errorf("lacks %q", want)
				}
			}
			for _, word := range []string{"REMOTE", "FAKE"} {
				if strings.Contains(out, word) {
					t.Errorf("%s is no word of this role", word)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// TestDoctorDocumented types each command of docs/doctor.md's, on a host on which all is well:
// behind "$", in a sentence, and flags alone, to which the page's sentence adds the program's
// name.
func TestDoctorDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	ofKernel := regexp.MustCompile(` -(kernel|modules|memory|cpus)\b`)
	for _, m := range regexp.MustCompile("(?m)^\\$ (.*)$|`(pfdivert doctor[^`]*|-[^`]+)`").FindAllSubmatch(text, -1) {
		command := string(m[1]) + string(m[2])
		switch {
		case strings.HasPrefix(command, "-"):
			command = "pfdivert doctor " + command
		case strings.HasSuffix(command, "doctor FILE"):
			continue // what -save FILE saved is read below
		}
		if ofKernel.MatchString(command) {
			continue // TestDoctorOnKernel boots some
		}
		command = strings.TrimPrefix(strings.TrimPrefix(command, "sudo "), "./")
		if command == "pfdivert doctor -pseudonyms" {
			command += " -save FILE"
		}
		if !slices.Contains(commands, command) {
			commands = append(commands, command)
		}
	}
	if len(commands) < 8 {
		t.Errorf("only %d commands were found: %q", len(commands), commands)
	}
	script := doctorProxy + "set +e\nfailed=0\n"
	for _, command := range append(commands, "pfdivert doctor FILE") {
		script += fmt.Sprintf("%s >out 2>&1 || { echo \"exit status $?:\" %q; cat out; failed=1; }\n", command, command)
	}
	script += "[ $failed = 0 ]"
	if out, status := inHost(t, script); status != 0 {
		t.Errorf("%d: %s", status, out)
	}
}

// TestDoctorJSON: -json has what the text has.
func TestDoctorJSON(t *testing.T) {
	out, status := inHost(t, doctorProxy+"ip route flush table 100; set +e; pfdivert doctor -json")
	var d struct {
		Problems []struct{ Severity, Cause, What, Fix string }
		Flows    []struct{ Flow, Outcome string }
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil || status != 1 {
		t.Fatalf("%v, exit status %d: %s", err, status, out)
	}
	if len(d.Problems) != 1 || d.Problems[0].Cause != "no-local-route" || d.Problems[0].Severity != "bad" ||
		d.Problems[0].Fix != "ip route add local default dev lo table 100" || len(d.Flows) < 10 {
		t.Errorf("%+v", d)
	}
}
