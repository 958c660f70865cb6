// Package labtest lets a package's tests run in network namespaces of their
// own, as root or not.
package labtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
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

// Need skips the test on a machine that forbids namespaces; see Lacks.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		Lacks(t, "network namespaces", forbidden)
	}
}

// Root skips the test of a user other than root; see Lacks.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Lacks(t, "root", os.ErrPermission)
	}
}

// NeedUsers skips the test on a machine that forbids user namespaces; see Lacks.
func NeedUsers(t testing.TB) {
	t.Helper()
	if err := usersForbidden(); err != nil {
		Lacks(t, userNamespaces, err)
	}
}

// userNamespaces is what a machine lacks that gives none.
const userNamespaces = "user namespaces"

// Programs skips the test on a machine that lacks one of the programs; see Lacks. Those of
// old iptables need a kernel that has its tables, too, which a look at one tells.
func Programs(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		file, err := exec.LookPath(name)
		if err != nil {
			Lacks(t, name, err)
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

// Program is Programs of one, and returns its path.
func Program(t testing.TB, name string) string {
	t.Helper()
	Programs(t, name)
	file, _ := exec.LookPath(name)
	return file
}

// notFound is what a shell prints of a program that there is not.
var notFound = regexp.MustCompile(`(?m)^sh: \d+: (\S+): not found$`)

// Shell skips the test when a shell said of a script that a program is missing; see Lacks.
func Shell(t testing.TB, said []byte) {
	t.Helper()
	if m := notFound.FindSubmatch(said); m != nil {
		Lacks(t, string(m[1]), errors.New("not found"))
	}
}

// lacks, in the environment, names the file to which each skipped test adds a line: what the
// machine lacks, a program or a right, and the name of the test. "make test" counts them.
const lacks = "PFDIVERT_TEST_LACKS"

// Lacks skips the test for want of a program or a right of this machine. On CI, which has all, it
// is a failure.
func Lacks(t testing.TB, what string, why error) {
	t.Helper()
	if err := record(t.Name(), what, why); err != nil {
		t.Fatal(err)
	}
	t.Skipf("this machine lacks %s: %v", what, why)
}

// Lack is the condition [lacks:NAME] of a script of testscript's: it reports whether this machine
// lacks a program or, by the name userns, user namespaces. Its test is counted as those that Lacks
// skips, and on CI a lack is an error.
func Lack(test, condition string) (bool, error) {
	name, ok := strings.CutPrefix(condition, "lacks:")
	if !ok {
		return false, fmt.Errorf("no condition %q", condition)
	}
	_, err := exec.LookPath(name)
	if name == "userns" {
		name, err = userNamespaces, usersForbidden()
	}
	if err == nil {
		return false, nil
	}
	return true, record(test, name, err)
}

// record notes that a test is skipped for want of something. On CI it is an error.
func record(test, what string, why error) error {
	if os.Getenv("CI") == "true" {
		return fmt.Errorf("no %s on CI: %w", what, why)
	}
	name := os.Getenv(lacks)
	if name == "" {
		return nil
	}
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s\t%s\n", what, test)
	return errors.Join(err, file.Close())
}

// AsNobody runs the tests of this package that match the pattern once more,
// as a user without any privilege, who gets a user namespace. It is skipped when
// this process is no root that could become that user.
func AsNobody(t *testing.T, pattern string) {
	t.Helper()
	Need(t)
	Root(t)
	NeedUsers(t)
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
