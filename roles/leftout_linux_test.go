package roles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// realKernel, in the environment, is the image of a kernel whose modules are beside it, as in
// a package of Debian's: .ci/kernels downloads one.
const realKernel = "PFDIVERT_KERNEL"

// needKernel returns the image of a kernel to boot.
func needKernel(t *testing.T) string {
	t.Helper()
	image := os.Getenv(realKernel)
	switch _, err := exec.LookPath("qemu-system-x86_64"); {
	case image == "":
		t.Skip(realKernel + " names no kernel: .ci/kernels does")
	case err != nil:
		t.Fatal(err)
	}
	return image
}

// modulesWithout makes a tree with the modules of a kernel, without one.
func modulesWithout(t *testing.T, image, without string) string {
	t.Helper()
	release := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
	from := filepath.Join(filepath.Dir(image), "../lib/modules", release)
	to := t.TempDir()
	found := false
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		name, _, module := strings.Cut(d.Name(), ".ko")
		switch {
		case err != nil:
			return err
		case module && strings.ReplaceAll(name, "-", "_") == without:
			found = true
			return nil
		case module || d.Name() == "modules.builtin":
			abs, err := filepath.Abs(path)
			return errors.Join(err, os.Symlink(abs, filepath.Join(to, d.Name())))
		}
		return nil
	})
	if err != nil || !found && without != "" {
		t.Fatalf("the kernel has no module %s: %v", without, err)
	}
	return to
}

// buildProgram builds the program as make does: the test binary needs libraries, and is no init.
var buildProgram = sync.OnceValues(func() (path string, err error) {
	dir, err := os.MkdirTemp("", "pfdivert-test-")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "pfdivert")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", path, "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// runProgram runs the program, which boots QEMU, and returns its status and all that it printed.
func runProgram(t *testing.T, args ...string) (status int, text string) {
	t.Helper()
	path, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		status = exit.ExitCode()
	}
	return status, string(out)
}

// TestLeftOut boots a kernel without one module after the other: a run and check-setup say of each
// the same one cause, with what fixes it, and none is called the kernel's failure.
func TestLeftOut(t *testing.T) {
	image := needKernel(t)
	targets := []string{"inet-args-tcp-to", "inet-reuse-tcp-to-reply", "inet-args-udp-packet-in", "inet-args-udp-reply"}
	for _, c := range []struct {
		module string
		lacks  string
		run    int    // its exit status: 2 when nothing can be tested
		last   string // of the run's output, when something can
	}{
		{"veth", "veth", 2, ""},
		{"nf_tables", "nf_tables", 2, ""},
		{"nf_conntrack", "nf_conntrack", 2, ""},
		{"nf_conntrack_netlink", "ctnetlink", 2, ""},
		{"nft_tproxy", "tproxy", 0, "4 targets: 2 PASS, 2 SKIP in "},
		{"nfnetlink_queue", "NFQUEUE", 0, "4 targets: 3 PASS, 1 SKIP in "},
		{"tcp_diag", "tcp_diag", 0, "4 targets: 2 PASS, 2 SKIP in "},
		{"", "", 0, "4 targets: 4 PASS in "},
	} {
		t.Run("without "+c.module, func(t *testing.T) {
			tree := modulesWithout(t, image, c.module)
			status, text := runProgram(t, append([]string{"run", "-kernel", image, "-modules", tree}, targets...)...)
			if status != c.run || !strings.Contains(text, c.last) {
				t.Errorf("run: exit status %d, want %d and %q:\n%s", status, c.run, c.last, text)
			}
			checked, setup := runProgram(t, "check-setup", "-kernel", image, "-modules", tree)
			if checked != c.run {
				t.Errorf("check-setup: exit status %d, want %d:\n%s", checked, c.run, setup)
			}
			if c.lacks == "" {
				return
			}
			for what, said := range map[string]string{"run": text, "check-setup": setup} {
				if !strings.Contains(said, c.lacks) || !strings.Contains(said, "modprobe -a ") ||
					!strings.Contains(said, c.module) {
					t.Errorf("%s does not name %s and what fixes it:\n%s", what, c.lacks, said)
				}
				if strings.Contains(said, "\nFAIL ") || strings.Contains(said, "\nERROR ") {
					t.Errorf("%s has another cause as well:\n%s", what, said)
				}
			}
		})
	}
}

// TestInit boots the initramfs without an orchestrator outside, as LAVA and others do: results go
// to the console for kselftest's readers, and the machine is switched off.
func TestInit(t *testing.T) {
	image := needKernel(t)
	initramfs := filepath.Join(t.TempDir(), "initramfs")
	if status, text := runProgram(t, "initramfs", "-o", initramfs, "-kernel", image); status != exitOK {
		t.Fatal(text)
	}
	for _, c := range []struct {
		name, line string
		want       []string
	}{
		{"kselftest", "-- -as kselftest inet-args-*", []string{"TAP version 13\r\n1..13\r\n",
			"\nok 1 inet-args-tcp-to # time=",
			"# Totals: pass:13 fail:0 xfail:0 xpass:0 skip:0 error:0\r\npfdivert: exit 0\r\n"}},
		{"people", "-- inet-args-tcp-to", []string{"PASS inet-args-tcp-to\r\n", "pfdivert: exit 0\r\n"}},
		{"wrong", "-- run -nonsense", []string{"run has no flag -nonsense", "pfdivert: exit 2\r\n"}},
		{"no IPv6", "ipv6.disable=1 -- check-setup", []string{"ok  FAKE must be unassigned",
			"pfdivert: exit 0\r\n"}},
		{"panic", "unknown_nmi_panic=1 -- -as kselftest -count 1000", []string{"Kernel panic - not syncing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			cmd := exec.CommandContext(t.Context(), "qemu-system-x86_64", "-nodefaults", "-display", "none",
				"-no-reboot",
				"-m", "256", "-serial", "mon:stdio", "-kernel", image, "-initrd", initramfs,
				"-append", "console=ttyS0 panic=-1 no_timer_check "+c.line)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdout = &out
			if c.name == "panic" {
				cmd.Stdout = &onText{w: &out, text: "remote0: link becomes ready",
					then: func() { _, _ = in.Write([]byte("\x01cnmi\n\x01c")) }}
			}
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not on the console:\n%s", want, out.String())
				}
			}
			if c.name == "panic" && strings.Contains(out.String(), "\nok ") {
				t.Errorf("a kernel that panicked passed:\n%s", out.String())
			}
		})
	}
}

// onText calls a function when a text was written.
type onText struct {
	w    *bytes.Buffer
	text string
	then func()
}

func (o *onText) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if o.then != nil && strings.Contains(o.w.String(), o.text) {
		o.then()
		o.then = nil
	}
	return n, err
}
