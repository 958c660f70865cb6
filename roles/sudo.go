package roles

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// passedOn are the variables that a run under $SUDO needs; sudo does not hand
// them on by itself.
var passedOn = []string{"KTRACE", "NO_COLOR", "TERM"}

// withSudo starts the program again under $SUDO, in place of this process, when
// that is set and this is not root: a lab's agents are children in namespaces
// that only root may make on some systems. again tells whether the caller must
// return; then there was an error.
func withSudo(c *call) (again bool, err error) {
	sudo := strings.Fields(c.Getenv("SUDO"))
	if len(sudo) == 0 || os.Geteuid() == 0 {
		return false, nil
	}
	path, err := exec.LookPath(sudo[0])
	if err != nil {
		return true, hinted{fmt.Errorf("SUDO: %w", err), "set SUDO to a command that makes root, sudo or doas, or leave it out"}
	}
	exe, err := os.Executable()
	if err != nil {
		return true, fmt.Errorf("the own executable: %w", err)
	}
	argv := append(sudo, "env")
	for _, name := range passedOn {
		if v := c.Getenv(name); v != "" {
			argv = append(argv, name+"="+v)
		}
	}
	argv = append(argv, exe, c.role.Name)
	return true, fmt.Errorf("SUDO: %w", syscall.Exec(path, append(argv, c.args...), os.Environ()))
}
