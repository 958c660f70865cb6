package roles_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

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
	got, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, got)
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
