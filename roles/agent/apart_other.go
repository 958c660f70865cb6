//go:build !linux

package agent

import (
	"os/exec"

	"pfdivert/roles/endpoint"
)

// withoutPrivilege has the process drop its privilege when it has been started: as another
// user it might not be allowed to read this program's file.
func withoutPrivilege(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, "-unprivileged") }

// DropPrivilege makes this process one of the user nobody, for good.
func DropPrivilege() error { return endpoint.DropPrivilege() }
