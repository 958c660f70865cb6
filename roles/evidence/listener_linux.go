package evidence

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"pfdivert/matrix/evidence"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Numbers of linux/inet_diag.h and linux/sock_diag.h.
const (
	sockDiagByFamily = 20
	diagV6Only       = 11 // INET_DIAG_SKV6ONLY
	diagSockopt      = 22 // INET_DIAG_SOCKOPT: struct inet_diag_sockopt, since 5.10
	transparentBit   = 1 << 5
	tcpClose         = 7 // what an unconnected UDP socket is in
	tcpListen        = 10
)

// listeners lists the sockets that could get diverted packets, as ss(8) does: TCP's that listen,
// UDP's that are not connected.
func listeners() ([]evidence.Listener, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("sock_diag socket: %w", err)
	}
	defer conn.Close()
	all := []evidence.Listener{} // none is known to be none
	for _, p := range []struct {
		name   string
		number uint8
		state  int
	}{{"tcp", evidence.ProtoTCP, tcpListen}, {"udp", evidence.ProtoUDP, tcpClose}} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			// struct inet_diag_req_v2: family, protocol, extensions, padding, states, and an id of
			// 48 bytes that is any.
			request := make([]byte, 56)
			request[0], request[1] = family, p.number
			binary.NativeEndian.PutUint32(request[4:], 1<<p.state)
			messages, err := conn.Execute(netlink.Message{
				Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump}, Data: request,
			})
			if err != nil {
				return nil, fmt.Errorf("list of %s sockets: %w", p.name, err)
			}
			for _, m := range messages {
				l, err := parseListener(m.Data)
				if err != nil {
					return nil, err
				}
				l.Proto = p.name
				all = append(all, l)
			}
		}
	}
	return all, nil
}

// parseListener reads a struct inet_diag_msg with its attributes: family, state, timer,
// retransmissions, the id (ports and addresses), five numbers of 32 bits.
func parseListener(b []byte) (l evidence.Listener, err error) {
	const header = 72
	if len(b) < header {
		return l, fmt.Errorf("sock_diag: a message of %d bytes", len(b))
	}
	size := 4
	if b[0] == unix.AF_INET6 {
		size = 16
	}
	a, _ := netip.AddrFromSlice(b[8 : 8+size])
	l.UID = binary.NativeEndian.Uint32(b[64:])
	l.At = netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[4:]))
	ad, err := netlink.NewAttributeDecoder(b[header:])
	if err != nil {
		return l, fmt.Errorf("sock_diag: %w", err)
	}
	for ad.Next() {
		switch ad.Type() {
		case diagV6Only:
			l.Only6 = ad.Uint8() != 0
		case diagSockopt:
			if v := ad.Bytes(); len(v) > 0 {
				l.Known, l.Transparent = true, v[0]&transparentBit != 0
			}
		}
	}
	if err := ad.Err(); err != nil {
		return l, fmt.Errorf("sock_diag: %w", err)
	}
	return l, nil
}
