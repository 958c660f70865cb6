//go:build openbsd || freebsd

package socket

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"pfdivert/pfconf/shared"
)

// sockets lists the TCP sockets, for all who ask at the same time.
var sockets = shared.New(listSockets)

func listSockets(ctx context.Context) (string, error) {
	// Without -v (OpenBSD) or -W (FreeBSD) netstat(1) cuts long addresses off.
	wide := "-v"
	if runtime.GOOS == "freebsd" {
		wide = "-W"
	}
	stdout, stderr, err := run(exec.CommandContext(ctx, "netstat", "-an", wide, "-p", "tcp"))
	if err != nil || stderr != "" {
		return "", fmt.Errorf("netstat: %w", toolError(err, stderr))
	}
	return stdout, nil
}

func tcpState(ctx context.Context, local, remote netip.AddrPort) (string, error) {
	list, err := sockets.Get(ctx)
	if err != nil {
		return "", err
	}
	return findInNetstat(list, local, remote)
}

// tcpDrop asks first whether there is such a socket: the list serves many, and
// tcpdrop(8) runs for one.
func tcpDrop(ctx context.Context, local, remote netip.AddrPort) error {
	if _, err := tcpState(ctx, local, remote); err != nil {
		return err
	}
	if done, err := dropInDomain(local, remote); done || err != nil {
		return err
	}
	stdout, stderr, err := run(exec.CommandContext(ctx, "/usr/sbin/tcpdrop",
		local.Addr().String(), strconv.Itoa(int(local.Port())), remote.Addr().String(),
		strconv.Itoa(int(remote.Port()))))
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

// otherWay is the address that turns a packet round which came with this one: none for
// one that came in, the loopback interface's for one that is to leave.
func otherWay(a netip.Addr) netip.Addr {
	switch {
	case a.Is4() && a.IsUnspecified():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case a.Is4():
		return netip.IPv4Unspecified()
	case a.IsUnspecified():
		return netip.IPv6Loopback()
	}
	return netip.IPv6Unspecified()
}
