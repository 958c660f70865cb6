package endpoint

import (
	"bufio"
	"context"
	"io"
	"os"
	"pfdivert/matrix/script"
)

// dropsTries is how often the table of queues is read that lacks one which someone listens on.
const dropsTries = 3

// Drops reads what the netfilter queue with the number has dropped. Someone must listen there: the
// kernel shows no others. A queue that is closed meanwhile moves others out of the next piece of
// the table (get_idx, nfnetlink_queue.c), so one that is missing is looked for again.
func Drops(_ context.Context, _ bool, number uint16) (d script.Dropped, err error) {
	for range dropsTries {
		var text string
		if text, err = readQueueTable(); err != nil {
			return script.Dropped{}, err
		}
		if d, err = parseQueues(text, number); err == nil {
			break
		}
	}
	return d, err
}

// readQueueTable reads a page of the table at a time: the kernel fills one under one lock.
func readQueueTable() (string, error) {
	f, err := os.Open("/proc/thread-self/net/netfilter/nfnetlink_queue")
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(bufio.NewReaderSize(f, os.Getpagesize()))
	return string(text), err
}
