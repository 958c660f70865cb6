package roles_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pfdivert/roles/host/sshtest"
	"pfdivert/roles/lab/labtest"
)

// TestDocumentedRemote types what docs/remote.md has a reader without a second machine type: it
// makes a REMOTE out of a namespace, checks it, runs the suite over ssh, meets the error that the
// page shows, and takes the host away. What is printed is what the page shows.
func TestDocumentedRemote(t *testing.T) {
	labtest.Need(t)
	labtest.Root(t)
	labtest.Programs(t, "ip", "ssh", "ssh-keygen", "unshare")
	sshtest.Need(t, "/usr/sbin/sshd")
	page := pages(t)["../docs/remote.md"]
	_, section, _ := strings.Cut(page, "\n## Without a second machine\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d scripts, want one that makes the host and one that takes it away", len(blocks))
	}
	dir := t.TempDir()
	if err := os.Symlink(program(t), filepath.Join(dir, "pfdivert")); err != nil {
		t.Fatal(err)
	}
	// The reader's own files in /run are not this test's to touch.
	const own = "mount -t tmpfs none /run\nip link set lo up\n"
	cmd := exec.Command("unshare", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-e")
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(own + blocks[0][1] + "exec 2>&1\n: >pfhost/known\n./pfdivert run || echo status $?\n" +
		blocks[1][1] + "ip netns list\nls\n")
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "SUDO=")
	var told strings.Builder
	cmd.Stderr = &told
	got, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, got, told.String())
	}
	_, checked, _ := strings.Cut(page, "$ ./pfdivert check-setup\n")
	checked, _, _ = strings.Cut(checked, "\n\n")
	_, last, _ := strings.Cut(page, "the last lines of the run:\n\n")
	last, _, _ = strings.Cut(last, "\n\n")
	_, refused, _ := strings.Cut(page, "and ends with exit status 2:\n\n")
	refused, _, _ = strings.Cut(refused, ": ssh ") // with SSH_OPTIONS
	want := checked + "\n…" + strings.TrimSpace(last) + "\n" + refused + "…\nstatus 2\npfdivert"
	indent := regexp.MustCompile("(?m)^ +")
	want, printed := indent.ReplaceAllString(want, ""), indent.ReplaceAllString(string(got), "")
	if !fits(want, printed, "") {
		t.Errorf("the commands print\n%s\nThe page has\n%s", masked(printed), masked(want))
	}
}

// TestDocumentedMirror types what docs/remote.md has for a third host on Linux, behind a router,
// and connects to it: the connection comes back to LOCAL, from the third host and the client's
// port.
func TestDocumentedMirror(t *testing.T) {
	labtest.Need(t)
	labtest.Root(t)
	labtest.Programs(t, "ip", "unshare", "sysctl", "nft")
	_, section, _ := strings.Cut(pages(t)["../docs/remote.md"], "\n## A second network and a third host\n")
	section, _, _ = strings.Cut(section, "\nOn FreeBSD, with pf")
	_, section, _ = strings.Cut(section, "\nThe third host can be ")
	commands := regexp.MustCompile(`(?m)^    # (.*)$`).FindAllStringSubmatch(section, -1)
	rules := regexp.MustCompile("(?s)```nft\n(.*?)```").FindStringSubmatch(section)
	if len(commands) != 3 || rules == nil {
		t.Fatalf("%d commands and the rules %q", len(commands), rules)
	}
	dir := t.TempDir()
	if err := os.Symlink(program(t), filepath.Join(dir, "pfdivert")); err != nil {
		t.Fatal(err)
	}
	var there strings.Builder
	for _, c := range commands {
		there.WriteString("ip netns exec third " + c[1] + "\n")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-e")
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(`mount -t tmpfs none /run
		ip link set lo up
		ip netns add router
		ip netns add third
		ip link add local0 type veth peer name local1 netns router
		ip -n router link add third0 type veth peer name third1 netns third
		ip addr add 10.188.1.1/24 dev local0
		ip addr add fd00:188:1::1/64 dev local0 nodad
		ip link set local0 up
		ip -n router addr add 10.188.1.2/24 dev local1
		ip -n router addr add fd00:188:1::2/64 dev local1 nodad
		ip -n router addr add 10.188.4.2/24 dev third0
		ip -n router addr add fd00:188:4::2/64 dev third0 nodad
		ip -n router link set local1 up
		ip -n router link set third0 up
		ip netns exec router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		ip -n third addr add 10.188.4.1/24 dev third1
		ip -n third addr add fd00:188:4::1/64 dev third1 nodad
		ip -n third link set third1 up
		ip route add 10.188.4.1 via 10.188.1.2
		ip -6 route add fd00:188:4::1 via fd00:188:1::2
		` + there.String() + "ip netns exec third nft -f - <<'END'\n" + rules[1] + `END
		for ends in 10.188.1.1,10.188.4.1: [fd00:188:1::1],[fd00:188:4::1]:; do
			./pfdivert server -bind ${ends%,*}:4000 >server &
			until grep -q listen server; do :; done
			./pfdivert client -bind ${ends%,*}:5000 ${ends#*,}4000
			wait $!
			cat server
		done
	`)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range []string{"accept peer: 10.188.4.1 5000", "accept peer: fd00:188:4::1 5000"} {
		if !strings.Contains(string(out), line+"\n") {
			t.Errorf("no line %q in\n%s", line, out)
		}
	}
}
