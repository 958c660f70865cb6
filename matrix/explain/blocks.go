package explain

import (
	"regexp"
	"strconv"
	"strings"
)

// blocks returns the rules of a BSD's own filters that have dropped packets of the family since
// they were loaded, as the filters show them: of ipfw "NUMBER PACKETS BYTES deny …", of pf "@N
// block …" and a line with what it counted.
func (h *HostFacts) blocks(v6 bool) []string {
	other := " inet6 "
	if v6 {
		other = " inet "
	}
	var all []string
	text, _ := h.answer("ipfw -a list", "")
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) > 4 && w[1] != "0" && drops[w[3]] && (w[4] == "ip" || w[4] == "all" ||
			v6 == strings.Contains(w[4], "6") || !ofVersion.MatchString(w[4])) {
			all = append(all, "ipfw: "+w[0]+" "+strings.Join(w[3:], " "))
		}
	}
	text, _ = h.answer("pfctl -vv -s rules", "")
	rule := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "@") {
			rule = line
			continue
		}
		m := packets.FindStringSubmatch(line)
		if m == nil || !strings.Contains(rule, " block ") || strings.Contains(rule+" ", other) {
			continue
		}
		if n, err := strconv.ParseUint(m[1], 10, 64); err == nil && n > 0 {
			all = append(all, "pf: "+rule)
		}
	}
	return all
}

// drops are ipfw's actions that end a packet's way.
var drops = map[string]bool{"deny": true, "drop": true, "reject": true, "unreach": true, "unreach6": true,
	"reset": true, "reset6": true}

var (
	ofVersion = regexp.MustCompile(`^(ip|ipv|icmp|ipv6-icmp)[46]?$`)
	packets   = regexp.MustCompile(`Packets: (\d+)`)
)
