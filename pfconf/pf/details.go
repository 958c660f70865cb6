package pf

import (
	"errors"
	"regexp"
	"strconv"
	"time"

	"pfdivert/pfconf"
)

// The lines that -vv puts below a state. What follows the counts of bytes is
// numbers of rules and options of the state (", sloppy", ", set-tos 0x10"), more
// with each release of FreeBSD; what follows the creator's id is the next hop,
// the routing table and the like. None of it changes what the rest means.
var (
	sequenceLine = regexp.MustCompile(`^   (\[[0-9]+ \+ [0-9]+\](\(\+[0-9]+\))?( wscale [0-9]+)?(  |$)){2}$`)
	ageLine      = regexp.MustCompile(`^   age ([0-9]+):([0-9]{2}):([0-9]{2}), expires in ([0-9]+):([0-9]{2}):([0-9]{2}), ` +
		`[0-9]+:[0-9]+ pkts, [0-9]+:[0-9]+ bytes(, [a-zA-Z][-/a-zA-Z0-9_ ()]*)*$`)
	idLine     = regexp.MustCompile(`^   id: ([0-9a-f]{16}) creatorid: ([0-9a-f]{8})( (route-to|dup-to|reply-to|gateway|rtable): \S+)*$`)
	originLine = regexp.MustCompile(`^   origif: \S+$`)
)

// parseDetail reads one line below a state into the state.
func parseDetail(s *pfconf.State, line string) error {
	if m := ageLine.FindStringSubmatch(line); m != nil {
		var err error
		if s.Age, err = clock(m[1:4]); err == nil {
			s.Expires, err = clock(m[4:7])
		}
		return err
	}
	if m := idLine.FindStringSubmatch(line); m != nil {
		if s.ID != "" {
			return errors.New("a second id for one state")
		}
		s.ID = m[1] + "/" + m[2]
		return nil
	}
	if sequenceLine.MatchString(line) || originLine.MatchString(line) {
		return nil
	}
	return errors.New("unknown detail of a state")
}

// clock reads hours, minutes and seconds.
func clock(hms []string) (time.Duration, error) {
	var seconds uint64
	for _, part := range hms {
		n, err := strconv.ParseUint(part, 10, 32) // pf has seconds in 32 bits
		if err != nil {
			return 0, err
		}
		seconds = seconds*60 + n
	}
	if seconds > 1<<32 {
		return 0, errors.New("more seconds than pf can count")
	}
	return time.Duration(seconds) * time.Second, nil
}
