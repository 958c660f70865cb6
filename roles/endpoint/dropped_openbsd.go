package endpoint

import (
	"context"
	"fmt"
	"os/exec"
	"pfdivert/matrix/script"
	"strconv"
	"strings"
)

// Drops reads what the divert sockets of a family have dropped, all together, and how much
// room one has.
func Drops(ctx context.Context, inet6 bool, _ uint16) (script.Dropped, error) {
	proto, variable := "divert", "net.inet.divert.recvspace"
	if inet6 {
		proto, variable = "divert6", "net.inet6.divert.recvspace"
	}
	stdout, stderr, err := run(exec.CommandContext(ctx, "netstat", "-s", "-p", proto))
	if err != nil || stderr != "" {
		return script.Dropped{}, fmt.Errorf("netstat: %w", toolError(err, stderr))
	}
	d, err := parseDivertStats(stdout)
	if err != nil {
		return d, err
	}
	stdout, stderr, err = run(exec.CommandContext(ctx, "sysctl", "-n", variable))
	if err == nil {
		d.Room, err = strconv.Atoi(strings.TrimSpace(stdout))
	}
	if err != nil {
		return d, fmt.Errorf("sysctl %s: %w", variable, toolError(err, stderr))
	}
	return d, nil
}
