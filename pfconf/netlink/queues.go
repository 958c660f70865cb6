package netlink

import (
	"bufio"
	"errors"
	"fmt"
	"io"
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
