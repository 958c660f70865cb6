//go:build !linux && !openbsd && !freebsd

package endpoint

import (
	"context"
	"net/netip"
)

func tcpState(context.Context, netip.AddrPort, netip.AddrPort) (string, error) {
	return "", unsupported("the state of a TCP socket")
}

func tcpDrop(context.Context, netip.AddrPort, netip.AddrPort) error {
	return unsupported("dropping a TCP connection")
}
