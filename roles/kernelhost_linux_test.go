package roles

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pfdivert/roles/kernel"
	"pfdivert/roles/lab/labtest"
)

// proxyHost, in the environment, has the test binary without arguments be beProxyHost. It names a
// folder for snapshots, or "-" for none.
const proxyHost = "PFDIVERT_TEST_PROXY"

const proxyFlow = "tcp 10.188.1.1 -> 10.208.0.9:4000"

// beProxyHost makes a host that diverts to a proxy, and prints what doctor says of it, and once
// more when the proxy has ended.
func beProxyHost() (status int) {
	dir := os.Getenv(proxyHost)
	os.Unsetenv(proxyHost) // what it starts are roles of the program
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", args...)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		cmd.Stderr = os.Stderr
		return cmd
	}
	begin := func(until string, args ...string) *exec.Cmd {
		cmd := command(args...)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			panic(err)
		}
		lines := bufio.NewReader(out)
		for line := ""; !strings.HasPrefix(line, until); {
			if line, err = lines.ReadString('\n'); err != nil {
				panic(fmt.Sprintf("%v ended without %q", args, until))
			}
		}
		go func() { _, _ = io.Copy(io.Discard, lines) }()
		return cmd
	}
	rule := begin("loaded", "pf-setup", "-proto", "tcp", "-from", "10.188.1.1", "-to", "10.208.0.9", "-port", "4000")
	proxy := begin("listen sock", "server", "-diverted", "-bind", "127.0.0.1:4000", "-timeout", "10m")
	look := func(name string) {
		if dir != "-" {
			if text, err := command("doctor", "-save", filepath.Join(dir, name)).Output(); err != nil {
				panic(fmt.Sprintf("%v: %s", err, text))
			}
		}
		cmd := command("doctor", "-flow", proxyFlow)
		text, err := cmd.Output()
		if cmd.ProcessState == nil {
			panic(err)
		}
		fmt.Printf("%s: exit status %d\n%s", name, cmd.ProcessState.ExitCode(), text)
	}
	look("good")
	_ = proxy.Process.Kill()
	_ = proxy.Wait()
	look("broken")
	_ = rule.Process.Signal(syscall.SIGINT)
	_ = rule.Wait()
	return 0
}

// TestDoctorOfProxy: doctor finds no problem with a proxy that listens, and with one that does not
// the problem. TestForeign runs it on machines of other kinds.
func TestDoctorOfProxy(t *testing.T) {
	labtest.Need(t)
	text := runProxyHost(t, "-")
	for _, want := range []string{"good: exit status 0\nno problem found in ", "broken: exit status 1\n1 problem\n",
		"nothing listens there for IPv4"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
}

func runProxyHost(t *testing.T, dir string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "lab", "-q", "-host", "remote", "--", exe)
	cmd.Env = append(os.Environ(), asProgram+"=1", proxyHost+"="+dir)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return string(text)
}

// TestDoctorOnKernel: a snapshot of one kernel is replayed on another.
func TestDoctorOnKernel(t *testing.T) {
	image := needKernel(t)
	labtest.Need(t)
	dir := t.TempDir()
	runProxyHost(t, dir)
	for name, want := range map[string]struct {
		status int
		text   string
	}{
		"good":   {exitOK, "no problem found in "},
		"broken": {exitFail, "nothing listens there for IPv4"},
	} {
		page := filepath.Join(dir, name+".html")
		status, text := runProgram(t, "doctor", "-kernel", image, "-flow", proxyFlow, "-html", page,
			filepath.Join(dir, name))
		if status != want.status || !strings.Contains(text, want.text) ||
			!strings.Contains(text, "said here is of Linux "+strings.TrimPrefix(filepath.Base(image), "vmlinuz-")) {
			t.Errorf("%s: exit status %d, want %d and %q:\n%s", name, status, want.status, want.text, text)
		}
		if html, err := os.ReadFile(page); err != nil || !bytes.Contains(html, []byte(want.text)) {
			t.Errorf("%s: the page has not %q: %v", name, want.text, err)
		}
	}
	bad := filepath.Join(dir, "none")
	if err := os.WriteFile(bad, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, text := runProgram(t, "doctor", "-kernel", image, bad); status != exitError ||
		!strings.Contains(text, "error: snapshot: the file is cut, or is none") {
		t.Errorf("a file that is no snapshot: exit status %d:\n%s", status, text)
	}
}

// foreignKernels, in the environment, are the images of kernels for processors that are not this
// machine's, as PATH has folders.
const foreignKernels = "PFDIVERT_FOREIGN_KERNELS"

// TestForeign runs tests on processors of 32 bits and of the other order of bytes.
func TestForeign(t *testing.T) {
	images := filepath.SplitList(os.Getenv(foreignKernels))
	if len(images) == 0 {
		t.Skip(foreignKernels + " names no kernel: .ci/kernels does")
	}
	for _, path := range images {
		image, err := kernel.ReadImage(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(image.Arch, func(t *testing.T) {
			dir := t.TempDir()
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-ldflags", "-s -w",
				"-o", filepath.Join(dir, "pfdivert-linux-"+image.Arch), ".")
			build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+image.Arch)
			if text, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			var out, errs, output bytes.Buffer
			o := kernel.Options{Kernel: path, Memory: 512, CPUs: 1, Dist: []string{dir}}
			status, err := kernel.Run(t.Context(), o, kernel.Job{Out: &out, Err: &errs, Output: &output,
				Arguments: []string{"-test.v", "-test.run", "^TestDoctorOfProxy$"}})
			if err != nil || status != 0 || !strings.Contains(out.String(), "--- PASS: TestDoctorOfProxy") {
				t.Errorf("exit status %d, %v:\n%s%s", status, err, out.String(), errs.String())
			}
		})
	}
}
