package gather

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf/netlink"
)

// procNet is the network namespace of the process's first thread. The others' would be in
// /proc/thread-self, but a process that was looking there takes 10 ms longer to end.
const procNet = "/proc/self/net"

// tableTries is how often a table of sockets is read that lacks one which is known to be open: a
// socket that is closed meanwhile moves others out of the next piece (udp_get_idx, net/ipv4/udp.c).
const tableTries = 3

// countersTakeLong: the beginning of a run does not wait for them.
const countersTakeLong = false

// counterFiles have the kernel's protocol counters.
var counterFiles = []struct {
	name  string
	parse func(string, map[string]int64) error
}{{"snmp", parsePairs}, {"netstat", parsePairs}, {"snmp6", parseNames}}

// readCounters reads the protocol counters. Each run does so once; to understand what was
// read takes longer, and is only done for evidence.
func readCounters(context.Context, Options) (counters, error) {
	buf := make([]byte, 16<<10) // the files have some 8 KB
	var ends []int
	n := 0
	for _, f := range counterFiles {
		m, err := readInto(filepath.Join(procNet, f.name), buf[n:])
		if err != nil && (f.name != "snmp6" || !errors.Is(err, fs.ErrNotExist)) { // a kernel without IPv6
			return nil, err
		}
		n += m
		ends = append(ends, n)
	}
	return sync.OnceValues(func() (map[string]int64, error) {
		all := make(map[string]int64, 512)
		begin := 0
		for i, f := range counterFiles {
			if err := f.parse(string(buf[begin:ends[i]]), all); err != nil {
				return nil, fmt.Errorf("/proc/net/%s: %w", f.name, err)
			}
			begin = ends[i]
		}
		return all, nil
	}), nil
}

// readInto reads a file of /proc, which must fit.
func readInto(name string, buf []byte) (n int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for {
		m, err := f.Read(buf[n:])
		n += m
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, err
		case n == len(buf):
			return n, fmt.Errorf("%s is longer than is known of it", name)
		}
	}
}

// tables are the tables that have the cell's sockets.
func tables(a evidence.About) []string {
	table := "raw"
	if a.Proto.HasPorts() {
		table = a.Proto.String()
	}
	if a.Divert != 0 {
		return []string{table, evidence.ProtoDivert}
	}
	return []string{table}
}

// readSockets lists the sockets of a protocol, and of divert-packet rules' queues for protoDivert.
// tcp's takes the kernel 4 ms for each family, as it goes through a table that all
// namespaces share.
func readSockets(_ context.Context, _ Options, proto string) ([]evidence.SocketEntry, error) {
	var all []evidence.SocketEntry
	take := func(s evidence.SocketEntry) { all = append(all, s) }
	if proto == evidence.ProtoDivert {
		return readQueues()
	}
	for _, family := range []string{"", "6"} {
		text, err := netlink.ReadTable(filepath.Join(procNet, proto+family))
		if family == "6" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = parseSockets(proto, text, take)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func readQueues() (all []evidence.SocketEntry, err error) {
	text, err := netlink.ReadTable(filepath.Join(procNet, "netfilter/nfnetlink_queue"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no queue was ever opened
	}
	if err != nil {
		return nil, err
	}
	queues, err := netlink.ParseQueues(text)
	for _, q := range queues {
		all = append(all, queueEntry(q))
	}
	return all, err
}
