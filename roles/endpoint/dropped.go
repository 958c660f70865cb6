package endpoint

import (
	"errors"
	"fmt"
	"pfdivert/matrix/script"
	"strconv"
	"strings"
)

// parseQueues finds a queue in the kernel's table (seq_show of nfnetlink_queue.c): number,
// port of the socket, packets that wait, copy mode and range, packets dropped because the
// queue was full, packets dropped because the socket was, id of the last packet, 1.
func parseQueues(text string, number uint16) (script.Dropped, error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 9 || f[0] != strconv.Itoa(int(number)) {
			continue
		}
		full, err1 := strconv.ParseUint(f[5], 10, 32)
		socket, err2 := strconv.ParseUint(f[6], 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return script.Dropped{}, fmt.Errorf("nfnetlink_queue: %w", err)
		}
		return script.Dropped{NoRoom: full + socket}, nil
	}
	return script.Dropped{}, fmt.Errorf("nfnetlink_queue: there is no queue %d in %q", number, text)
}

// parseFreeBSDDivert reads what netstat(1) of FreeBSD 15 prints of divert, which is for both families.
func parseFreeBSDDivert(text string) (d script.Dropped, err error) {
	for line := range strings.Lines(text) {
		number, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(what, "packet") && strings.HasSuffix(what, "failed to divert due to no socket bound at port") {
			d.NoSocket, err = strconv.ParseUint(number, 10, 64)
			return d, err
		}
	}
	return d, fmt.Errorf("netstat does not tell what was dropped: %q", appendPrintable(nil, []byte(text)))
}

// parseDivertStats reads what netstat(1) of OpenBSD prints of divert or divert6.
func parseDivertStats(text string) (d script.Dropped, err error) {
	known := map[string]*uint64{
		"dropped due to no socket": &d.NoSocket, "dropped due to full socket buffers": &d.NoRoom,
	}
	for line := range strings.Lines(text) {
		number, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		if to := known[what]; to != nil {
			if *to, err = strconv.ParseUint(number, 10, 64); err != nil {
				return d, fmt.Errorf("netstat: %w", err)
			}
			delete(known, what)
		}
	}
	if len(known) > 0 {
		return d, fmt.Errorf("netstat does not tell what was dropped: %q", appendPrintable(nil, []byte(text)))
	}
	return d, nil
}
