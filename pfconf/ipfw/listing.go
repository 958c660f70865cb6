package ipfw

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// entry is a rule that is loaded.
type entry struct {
	number   int
	packets  uint64
	set      int
	disabled bool   // its set is
	text     string // action and what follows, with the comment
}

// label is the rule's comment if it is a label of this program, else "".
func (e entry) label() string {
	i := strings.LastIndex(e.text, " // ")
	if i < 0 || !pfconf.ValidLabel(e.text[i+4:]) {
		return ""
	}
	return e.text[i+4:]
}

const (
	defaultNumber = 65535 // of the default rules, which are always there (IPFW_DEFAULT_RULE)
	lastSet       = 30    // set 31 is that of the default rules (RESVD_SET)
)

// isDefault reports whether it is one of the default rules. FreeBSD 15 has two, of which the first
// counts what no packet matches.
func (e entry) isDefault() bool { return e.number == defaultNumber && e.set > lastSet }

var ruleLine = regexp.MustCompile(`^(# DISABLED )?([0-9]{5})( +([0-9]+) +([0-9]+))? set ([0-9]+) (.+)$`)

// parseLine reads a line of `ipfw -S list` or, with counters, of `ipfw -S show`.
func parseLine(line string) (entry, error) {
	m := ruleLine.FindStringSubmatch(line)
	if m == nil {
		return entry{}, fmt.Errorf("not understood: %.200q", line)
	}
	e := entry{disabled: m[1] != "", text: m[7]}
	var err, errPackets, errSet error
	e.number, err = strconv.Atoi(m[2])
	if m[3] != "" {
		e.packets, errPackets = strconv.ParseUint(m[4], 10, 64)
	}
	e.set, errSet = strconv.Atoi(m[6])
	if err := errors.Join(err, errPackets, errSet); err != nil {
		return entry{}, fmt.Errorf("%.200q: %w", line, err)
	}
	return e, nil
}

// parseListing reads what `ipfw -S show` printed. A line that it does not understand is
// an error: a listing understood in part would make rules seem absent.
func parseListing(out string) ([]entry, error) {
	var all []entry
	for _, line := range program.Lines(out) {
		e, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("ipfw -S show: %w", err)
		}
		all = append(all, e)
	}
	if len(all) == 0 || !all[len(all)-1].isDefault() {
		return nil, errors.New("ipfw -S show: the default rule is not there")
	}
	return all, nil
}

// list lists all rules of the host.
func (c *Control) list(ctx context.Context) ([]entry, error) {
	out, err := c.ipfw(ctx, "", "-S", "show")
	if err != nil {
		return nil, err
	}
	return parseListing(out)
}

// parseSets reads what `ipfw set show` prints, `disable 7 8 enable 0 1 2 …`, and returns the
// sets that are enabled.
func parseSets(out string) ([]int, error) {
	var enabled []int
	which := ""
	for _, word := range strings.Fields(out) {
		if word == "enable" || word == "disable" {
			which = word
			continue
		}
		n, err := strconv.Atoi(word)
		if err != nil || which == "" || n < 0 || n > lastSet {
			return nil, fmt.Errorf("ipfw set show: not understood: %.200q", out)
		}
		if which == "enable" {
			enabled = append(enabled, n)
		}
	}
	if !slices.Contains(enabled, 0) && !strings.HasPrefix(out, "disable") {
		return nil, fmt.Errorf("ipfw set show: not understood: %.200q", out)
	}
	return enabled, nil
}

// freeSets returns two enabled sets without rules.
func freeSets(rules []entry, enabled []int) ([2]int, error) {
	var free []int
	for _, n := range enabled {
		if n > 0 && !slices.ContainsFunc(rules, func(e entry) bool { return e.set == n }) {
			free = append(free, n)
		}
	}
	if len(free) < 2 {
		return [2]int{}, hinted{
			fmt.Errorf("of ipfw's sets 1 to %d only %d are enabled and without rules; two are needed", lastSet, len(free)),
			"look at `ipfw -S list` and `ipfw set show`, and free some",
		}
	}
	return [2]int{free[0], free[1]}, nil
}
