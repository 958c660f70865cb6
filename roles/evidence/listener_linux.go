package evidence

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf/netlink"
)

// listeners lists the sockets that could get diverted packets, as ss(8) does: TCP's that listen,
// UDP's that are not connected.
func listeners() (all []evidence.Listener, err error) {
	s, err := netlink.Open(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag socket: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	all = []evidence.Listener{} // none is known to be none
	for _, p := range []struct {
		name          string
		number, state uint8
	}{{"tcp", evidence.ProtoTCP, netlink.StateListen}, {"udp", evidence.ProtoUDP, netlink.StateClose}} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			sockets, err := s.ListInet(family, p.number, p.state)
			if err != nil {
				return nil, fmt.Errorf("list of %s sockets: %w", p.name, err)
			}
			for _, x := range sockets {
				all = append(all, evidence.Listener{
					Proto: p.name, At: x.Local, UID: x.UID, Only6: x.Only6, Transparent: x.Transparent, Known: x.TransparentKnown,
				})
			}
		}
	}
	return all, nil
}
