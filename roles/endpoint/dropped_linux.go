package endpoint

import (
	"context"
	"os"
)

// Drops reads what the netfilter queue with the number has dropped. Somebody must listen
// there: the kernel shows no others.
func Drops(_ context.Context, _ bool, number uint16) (Dropped, error) {
	text, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
	if err != nil {
		return Dropped{}, err
	}
	return parseQueues(string(text), number)
}
