package evidence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// procNet is the calling thread's network namespace.
const procNet = "/proc/thread-self/net"

// readCounters reads the kernel's protocol counters.
func readCounters(context.Context) (map[string]int64, error) {
	all := make(map[string]int64, 512)
	for _, f := range []struct {
		name  string
		parse func(string, map[string]int64) error
	}{{"snmp", parsePairs}, {"netstat", parsePairs}, {"snmp6", parseNames}} {
		text, err := os.ReadFile(filepath.Join(procNet, f.name))
		if f.name == "snmp6" && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err == nil {
			err = f.parse(string(text), all)
		}
		if err != nil {
			return nil, fmt.Errorf("/proc/net/%s: %w", f.name, err)
		}
	}
	return all, nil
}

// readSockets lists the sockets of all protocols that cells have.
func readSockets(context.Context) ([]Socket, error) {
	var all []Socket
	take := func(s Socket) { all = append(all, s) }
	for _, proto := range []string{"tcp", "udp", "raw"} {
		for _, family := range []string{"", "6"} {
			text, err := os.ReadFile(filepath.Join(procNet, proto+family))
			if family == "6" && errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = parseSockets(proto, string(text), take)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(procNet, "netfilter/nfnetlink_queue"))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil // no queue was ever opened
	}
	if err == nil {
		err = parseQueues(string(text), take)
	}
	return all, err
}
