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
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "netstat", "-an", wide, "-p", "tcp")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		return "", fmt.Errorf("netstat: %w", toolError(err, stderr.String()))
	}
	return findInNetstat(string(out), local, remote)
}

func tcpDrop(ctx context.Context, local, remote netip.AddrPort) error {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "/usr/sbin/tcpdrop",
		local.Addr().String(), strconv.Itoa(int(local.Port())), remote.Addr().String(), strconv.Itoa(int(remote.Port())))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return readTCPDrop(string(out), strings.TrimSpace(stderr.String()), err)
}
