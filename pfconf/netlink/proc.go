package netlink

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Queue is a netfilter queue that a process listens on.
type Queue struct {
	Number  uint16
	Waiting uint64 // packets that no one has taken
	// Full and Socket count the packets dropped because the queue was full, and because the
	// socket was.
	Full, Socket uint64
	LastID       uint64 // of the last packet
}

// ReadTable reads a table that the kernel writes piece by piece, such as
// "/proc/self/net/netfilter/nfnetlink_queue". It reads a page of it at a time: the kernel fills one
// under one lock, and what is opened or closed between two pages moves the others.
func ReadTable(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(bufio.NewReaderSize(f, os.Getpagesize()))
	return string(text), err
}

// ParseQueues reads /proc/net/netfilter/nfnetlink_queue (seq_show, nfnetlink_queue.c): number, port
// of the socket, packets that wait, copy mode and range, packets dropped because the queue was
// full, packets dropped because the socket was, id of the last packet, 1.
func ParseQueues(text string) ([]Queue, error) {
	var all []Queue
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) < 8 {
			return nil, fmt.Errorf("nfnetlink_queue: %.60q is no queue", line)
		}
		number, err := strconv.ParseUint(w[0], 10, 16)
		q := Queue{Number: uint16(number)}
		for at, to := range map[int]*uint64{2: &q.Waiting, 5: &q.Full, 6: &q.Socket, 7: &q.LastID} {
			n, wrong := strconv.ParseUint(w[at], 10, 32)
			*to, err = n, errors.Join(err, wrong)
		}
		if err != nil {
			return nil, fmt.Errorf("nfnetlink_queue: %.60q: %w", line, err)
		}
		all = append(all, q)
	}
	return all, nil
}

// ParseProcAddress reads "0100007F:1F90" of /proc/net/tcp and the like: the address as numbers of
// 32 bits, which the machine has in its own order, and the port.
func ParseProcAddress(s string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(address)
	p, errPort := strconv.ParseUint(port, 16, 16)
	if err != nil || errPort != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, fmt.Errorf("%.60q is no address with a port", s)
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(p)), nil
}
