package socket

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"pfdivert/matrix/script"
)

// TCPState returns the state of the TCP socket with these names, in the words of netstat(1) on the
// BSDs: "ESTABLISHED", "FIN_WAIT_2", "TIME_WAIT" …. The error is ErrNoSocket if there is none;
// listeners do not count.
func TCPState(ctx context.Context, local, remote netip.AddrPort) (state string, err error) {
	if err := sameFamily(local, remote); err != nil {
		return "", err
	}
	state, err = tcpState(ctx, local, remote)
	if err != nil {
		return "", fmt.Errorf("state of %v %v: %w", local, remote, err)
	}
	return state, nil
}

// Drop ends the TCP connection with these names, whatever its state and whoever owns it, as
// tcpdrop(8) does. Its socket is gone afterwards, also in TIME_WAIT. The error is ErrNoSocket if
// there is none.
func Drop(ctx context.Context, local, remote netip.AddrPort) error {
	if err := sameFamily(local, remote); err != nil {
		return err
	}
	if err := tcpDrop(ctx, local, remote); err != nil {
		return fmt.Errorf("drop %v %v: %w", local, remote, err)
	}
	return nil
}

func sameFamily(local, remote netip.AddrPort) error {
	if !script.Plain(local.Addr()) || !script.Plain(remote.Addr()) || local.Addr().Is4() != remote.Addr().Is4() {
		return fmt.Errorf("%v and %v are no pair of addresses", local, remote)
	}
	return nil
}

// readTCPDrop reads what tcpdrop(8) of OpenBSD and FreeBSD answers. It is only
// believed when it says that the connection was dropped: OpenBSD's fails without
// a word when the addresses are of two families.
func readTCPDrop(stdout, stderr string, err error) error {
	if strings.HasPrefix(stderr, "tcpdrop: ") && strings.HasSuffix(stderr, ": No such process") {
		return ErrNoSocket
	}
	if err == nil && stderr == "" && strings.HasSuffix(strings.TrimSpace(stdout), "dropped") {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("unknown answer %q", stdout)
	}
	return fmt.Errorf("tcpdrop: %w", toolError(err, stderr))
}

// toolError joins how a program ended and what it complained about.
func toolError(err error, stderr string) error {
	if stderr = strings.TrimSpace(stderr); stderr == "" {
		return err
	}
	return errors.Join(err, errors.New(string(appendPrintable(nil, []byte(stderr)))))
}

// findInNetstat finds a connection's state in the output of "netstat -an -p
// tcp" of OpenBSD or FreeBSD. A line that cannot be read is an error: it could
// be the one that was asked for.
func findInNetstat(out string, local, remote netip.AddrPort) (string, error) {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		// Proto Recv-Q Send-Q Local Foreign State
		if len(f) < 6 || !strings.HasPrefix(f[0], "tcp") || strings.HasSuffix(f[4], "*") {
			continue
		}
		l, lerr := netstatAddress(f[3])
		r, rerr := netstatAddress(f[4])
		if err := errors.Join(lerr, rerr); err != nil {
			return "", fmt.Errorf("netstat: %q: %w", appendPrintable(nil, []byte(line)), err)
		}
		if l == local && r == remote {
			return f[5], nil
		}
	}
	return "", ErrNoSocket
}

// netstatAddress reads "10.188.2.9.5000" and "fd00:188:2::9.5000".
func netstatAddress(s string) (netip.AddrPort, error) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return netip.AddrPort{}, errors.New("an address without a port")
	}
	a, err := netip.ParseAddr(s[:i])
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(a, uint16(port)), nil
}
