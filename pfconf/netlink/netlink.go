// Package netlink talks to the Linux kernel over netlink sockets that never wait: batches whose
// wrong message is named, packets of queues, and sockets looked up one by one. What is merely
// listed or set is asked through github.com/mdlayher/netlink; see package rtnetlink.
package netlink

import (
	"errors"
	"fmt"
)

// ErrClosed is the error of a request on a closed socket.
var ErrClosed = errors.New("the netlink socket is closed")

// tcpStates are the BSDs' names of the kernel's TCP states, by number (include/net/tcp_states.h).
// The second SYN_RCVD is a request whose handshake is not over, TCP_NEW_SYN_RECV.
var tcpStates = [...]string{
	1: "ESTABLISHED", "SYN_SENT", "SYN_RCVD", "FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT",
	"CLOSED", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "SYN_RCVD", "BOUND_INACTIVE",
}

// TCPState returns the name of the kernel's TCP state that the BSDs have. A number without a
// name is an error.
func TCPState(number uint8) (string, error) {
	if int(number) < len(tcpStates) && tcpStates[number] != "" {
		return tcpStates[number], nil
	}
	return "", fmt.Errorf("unknown TCP state %d", number)
}
