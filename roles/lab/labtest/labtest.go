// Package labtest lets a package's tests run in network namespaces of their
// own, as root or not.
package labtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

// inside marks, in the environment, a test process that has its namespaces.
const inside = "PFDIVERT_LABTEST"

// forbidden is why this machine gives no namespaces, if it does not.
var forbidden error

// Main is for TestMain: it runs the package's tests in a process with a
// network namespace of its own (and, for a user other than root, a user
// namespace) and returns their exit status. Where the system forbids that, the
// tests run without, and those that call Need are skipped.
func Main(m *testing.M) int {
	if os.Getenv(inside) != "" {
		return m.Run()
	}
	cmd, err := Command("/proc/self/exe", os.Args[1:]...)
	if err == nil {
		cmd.Env = append(os.Environ(), inside+"=1")
		err = cmd.Start()
	}
	if err != nil {
		forbidden = err
		return m.Run()
	}
	// The child gets a terminal's signals itself; here they must not leave it
	// behind.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "labtest:", err)
	return 2
}

// Need skips the test on a machine that forbids namespaces. On CI that is a
// failure: nothing may be skipped there for want of a privilege.
func Need(t testing.TB) {
	t.Helper()
	switch {
	case os.Getenv(inside) != "":
	case os.Getenv("CI") == "true":
		t.Fatalf("no network namespace on CI: %v", forbidden)
	default:
		t.Skipf("needs a network namespace, which this system forbids: %v", forbidden)
	}
}

// Programs skips the test on a machine that lacks one of the programs; CI has them all. Those of
// old iptables need a kernel that has its tables, too, which a look at one tells.
func Programs(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		file, err := exec.LookPath(name)
		switch {
		case err == nil:
		case os.Getenv("CI") == "true":
			t.Fatalf("not on CI: %v", err)
		default:
			t.Skip(err)
		}
		if !strings.Contains(name, "-legacy") {
			continue
		}
		out, err := exec.Command(strings.TrimSuffix(file, "-restore"), "-t", "mangle", "-S").CombinedOutput()
		if err != nil && strings.Contains(string(out), "does not exist") {
			t.Skipf("this kernel has no tables of old iptables: %s", out)
		}
	}
}

// AsNobody runs the tests of this package that match the pattern once more,
// as a user without any privilege, who gets a user namespace. It is skipped when
// this process is no root that could become that user.
func AsNobody(t *testing.T, pattern string) {
	t.Helper()
	if os.Getenv(inside) == "" || os.Geteuid() != 0 {
		t.Skip("only root can drop to a user without privilege")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", pattern, "-test.v", "-test.count=1")
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, inside+"=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	becomeNobody(cmd)
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EINVAL): // setresuid(2): the id is not mapped
		t.Skip("this user namespace has only one user")
	case err != nil:
		t.Errorf("as nobody: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"), !strings.Contains(string(out), "--- PASS"):
		t.Errorf("as nobody, tests were skipped:\n%s", out)
	}
}
