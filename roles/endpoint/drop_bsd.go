//go:build openbsd || freebsd

package endpoint

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

func tcpState(ctx context.Context, local, remote netip.AddrPort) (string, error) {
	// Without -v (OpenBSD) or -W (FreeBSD) netstat(1) cuts long addresses off.
	wide := "-v"
	if runtime.GOOS == "freebsd" {
		wide = "-W"
	}
	stdout, stderr, err := run(exec.CommandContext(ctx, "netstat", "-an", wide, "-p", "tcp"))
	if err != nil || stderr != "" {
		return "", fmt.Errorf("netstat: %w", toolError(err, stderr))
	}
	return findInNetstat(stdout, local, remote)
}

func tcpDrop(ctx context.Context, local, remote netip.AddrPort) error {
	stdout, stderr, err := run(exec.CommandContext(ctx, "/usr/sbin/tcpdrop",
		local.Addr().String(), strconv.Itoa(int(local.Port())), remote.Addr().String(), strconv.Itoa(int(remote.Port()))))
	return readTCPDrop(stdout, strings.TrimSpace(stderr), err)
}

// run runs a program to its end and gives what it printed.
func run(cmd *exec.Cmd) (stdout, stderr string, err error) {
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err = Start(cmd); err == nil {
		err = cmd.Wait()
	}
	return out.String(), complaint.String(), err
}
