package namespace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"pfdivert/roles/lab/labtest"
)

// The test program is also the process that is refused: with the argument
// "try" it prints what Start says.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "try":
			try()
			return
		case "forbid":
			forbid(os.Args[2])
			return
		}
	}
	os.Exit(m.Run())
}

func try() {
	err := Start(exec.Command("/proc/self/exe", "-test.run=^$"))
	var f *ForbiddenError
	if errors.As(err, &f) {
		fmt.Printf("%v\n%s\n", f, f.Hint())
		return
	}
	fmt.Println("not forbidden:", err)
}

// forbid, in a user namespace, sets its limit of a kind to 0 and tries as
// another user, if the namespace has one, or as its root.
func forbid(limit string) {
	if err := os.WriteFile("/proc/sys/user/"+limit, []byte("0"), 0); err != nil {
		fmt.Println(err)
		return
	}
	cmd := exec.Command("/proc/self/exe", "try")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if limit == "max_user_namespaces" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1, Gid: 1, NoSetGroups: true}}
	}
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
	}
}

func TestForbidden(t *testing.T) {
	for _, limit := range []string{"max_user_namespaces", "max_net_namespaces"} {
		t.Run(limit, func(t *testing.T) {
			ids := 1
			if limit == "max_user_namespaces" {
				if !realRoot() {
					t.Skip("only root can give a user namespace two users")
				}
				ids = 2
			}
			cmd := exec.Command("/proc/self/exe", "forbid", limit)
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: ids}},
				GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: ids}},
			}
			out, err := cmd.CombinedOutput()
			if refused := new(ForbiddenError); err != nil && errors.As(Explain(err), &refused) {
				labtest.Lacks(t, "user namespaces", err)
			} else if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, want := range []string{"no space left on device", "(user." + limit + " is 0)", "SUDO=sudo",
				"sysctl -w user." + limit + "="} {
				if !strings.Contains(string(out), want) {
					t.Errorf("says %q, want %q in it", out, want)
				}
			}
		})
	}
}

func TestBlame(t *testing.T) {
	for _, c := range []struct {
		name        string
		root        bool
		refusal     syscall.Errno
		sysctls     map[string]string
		cause, cure string
	}{
		{"Debian", false, syscall.EPERM, map[string]string{"kernel.unprivileged_userns_clone": "0"},
			"kernel.unprivileged_userns_clone is 0", "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"Ubuntu", false, syscall.EACCES, map[string]string{"kernel.unprivileged_userns_clone": "1",
			"kernel.apparmor_restrict_unprivileged_userns": "1"},
			"kernel.apparmor_restrict_unprivileged_userns is 1",
			"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"none left", false, syscall.ENOSPC, map[string]string{"user.max_user_namespaces": "100"},
			"limit of namespaces is reached", "raise user.max_user_namespaces"},
		{"container", false, syscall.EPERM, nil, "seccomp", "outside of the container"},
		{"root in a container", true, syscall.EPERM, nil, "", "CAP_SYS_ADMIN"},
		{"root out of namespaces", true, syscall.ENOSPC, map[string]string{"user.max_net_namespaces": "0"},
			"user.max_net_namespaces is 0", "sysctl -w user.max_net_namespaces=10000"},
	} {
		cause, cure := blame(c.root, c.refusal, func(name string) string { return c.sysctls[name] })
		if !strings.Contains(cause, c.cause) || !strings.Contains(cure, c.cure) {
			t.Errorf("%s: %q, %q; want %q, %q", c.name, cause, cure, c.cause, c.cure)
		}
	}
}

// Other errors are not taken for a refusal.
func TestExplain(t *testing.T) {
	for _, err := range []error{nil, errors.New("x"), syscall.EEXIST} {
		if got := Explain(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
	wrapped := fmt.Errorf("create: %w", syscall.EPERM)
	var f *ForbiddenError
	if err := Explain(wrapped); !errors.As(err, &f) || !errors.Is(err, syscall.EPERM) {
		t.Errorf("%v became %v", wrapped, err)
	} else if again := Explain(err); again != err {
		t.Errorf("explained twice: %v", again)
	}
}
