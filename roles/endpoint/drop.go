package endpoint

import (
	"context"
	"fmt"
	"net/netip"
	"pfdivert/matrix/script"
)

// TCPState returns the state of the TCP socket with these names, as netstat(1)
// names it on the BSDs: "ESTABLISHED", "FIN_WAIT_2", "TIME_WAIT" … It is
// ErrNoSocket when there is none; a listener is not one.
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

// Drop ends the TCP connection with these names, whatever its state and
// whoever's it is, as tcpdrop(8) does: its socket is gone, also in TIME_WAIT. It
// is ErrNoSocket when there is none.
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
