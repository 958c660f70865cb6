package endpoint

import (
	"context"
	"fmt"
	"os/exec"

	"pfdivert/matrix/script"
)

// Drops reads what was dropped for want of a divert socket, on all ports together. FreeBSD has such
// a counter since 15.
func Drops(ctx context.Context, _ bool, _ uint16) (script.Dropped, error) {
	stdout, stderr, err := run(exec.CommandContext(ctx, "netstat", "-s", "-p", "divert"))
	if err != nil || stderr != "" {
		return script.Dropped{}, fmt.Errorf("netstat: %w", toolError(err, stderr))
	}
	return parseFreeBSDDivert(stdout)
}
