package explain

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// HostFacts is what is known of a host in one address family: what was asked of it, and how it
// answered.
type HostFacts struct {
	evidence.Record
	Remote bool // it is REMOTE, whose packet filter diverts
}

// answer returns the answer to the command that begins and ends so. "ip -6" asks the same as "ip".
func (h *HostFacts) answer(begin, end string) (text string, ok bool) {
	for _, a := range h.Answers {
		command := strings.Replace(a.Command, "ip -6 ", "ip ", 1)
		if strings.HasPrefix(command, begin) && strings.HasSuffix(command, end) {
			return a.Text, true
		}
	}
	return "", false
}

// commandAfter returns the rest of the first command that begins so.
func (h *HostFacts) commandAfter(begin string) string {
	for _, a := range h.Answers {
		if rest, ok := strings.CutPrefix(strings.Replace(a.Command, "ip -6 ", "ip ", 1), begin); ok {
			return rest
		}
	}
	return ""
}

// sysctl returns a setting, "" when it is not known.
func (h *HostFacts) sysctl(name string) string {
	text, _ := h.answer("sysctl "+name, name)
	// Linux has spaces about the sign, and FreeBSD has a colon.
	if i := strings.IndexAny(text, "=:"); i >= 0 {
		return strings.TrimSpace(text[i+1:])
	}
	return ""
}

// pfOff and ipfwOff report whether the filter is known to be switched off.
func (h *HostFacts) pfOff() bool {
	status, _ := h.answer("pfctl -s ", " info")
	return strings.Contains(status, "Status: Disabled")
}

// pfOn reports whether pf is known to be switched on.
func (h *HostFacts) pfOn() bool {
	status, _ := h.answer("pfctl -s ", " info")
	return strings.Contains(status, "Status: Enabled")
}

// translatesSource reports whether a rule of pf's main ruleset changes the source of what leaves:
// then the rules behind it see another one.
func (h *HostFacts) translatesSource() bool {
	rules, _ := h.answer("pfctl -vv -s ", "rules")
	return sourceTranslation.MatchString(rules)
}

var sourceTranslation = regexp.MustCompile(`(?m)^(@[0-9]+ )?match out .* nat-to `)

func (h *HostFacts) ipfwOff() bool {
	return h.sysctl("net.inet.ip.fw.enable") == "0" || h.sysctl("net.inet6.ip6.fw.enable") == "0"
}

// nicSysctl returns the larger of a setting of all interfaces and of the one towards the other
// host, which is what the kernel goes by.
func (h *HostFacts) nicSysctl(family, name string) string {
	nic := strings.ReplaceAll(h.nic(), ".", "/")
	return max(h.sysctl("net."+family+".conf.all."+name), h.sysctl("net."+family+".conf."+nic+"."+name))
}

// nic is the interface towards the other host.
func (h *HostFacts) nic() string {
	if nic := h.commandAfter("ip link show dev "); nic != "" {
		return nic
	}
	// A BSD is asked for the interface alone before it is asked for all.
	if nic := h.commandAfter("ifconfig "); !strings.HasPrefix(nic, "-") {
		return nic
	}
	return ""
}

// mtu is that interface's, 0 when it is not known.
func (h *HostFacts) mtu() int {
	for _, a := range h.Answers {
		nic := h.nic()
		if _, after, ok := strings.Cut(a.Text, " mtu "); ok && nic != "" && strings.HasPrefix(a.Text, nic+":") {
			return int(number(strings.Fields(after + " ")[0], 0))
		}
	}
	return 0
}

// mark and table are those of diverted packets.
func (h *HostFacts) mark() uint32 {
	for _, a := range h.Answers {
		if _, mark, ok := strings.Cut(a.Command, " mark "); ok {
			n, _ := strconv.ParseUint(mark, 0, 32)
			return uint32(n)
		}
	}
	return 0
}

func (h *HostFacts) table() string { return h.commandAfter("ip route show table ") }

// policyRule is a line of "ip rule".
type policyRule struct {
	priority   int
	from       netip.Prefix // of all when it is invalid
	mark, mask uint32
	marked     bool
	invert     bool   // of what is not so
	iif        string // of what comes in by it, "" for any
	table      string
}

// takes reports whether a packet with the mark goes by the rule.
func (r policyRule) takes(mark uint32) bool { return mark&r.mask == r.mark != r.invert }

// policyRules returns the policy rules, false when they are not known.
func (h *HostFacts) policyRules() ([]policyRule, bool) {
	text, ok := h.answer("ip rule", "ip rule")
	if !ok {
		return nil, false
	}
	var all []policyRule
	for line := range strings.Lines(text) {
		priority, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		r := policyRule{invert: strings.HasPrefix(strings.TrimSpace(rest), "not ")}
		r.priority, _ = strconv.Atoi(priority)
		words := strings.Fields(rest)
		for i := 0; i+1 < len(words); i++ {
			switch next := words[i+1]; words[i] {
			case "from":
				r.from = prefix(next)
			case "fwmark":
				mark, mask, _ := strings.Cut(next, "/")
				r.mark, r.mask, r.marked = number(mark, 0), number(mask, ^uint32(0)), true
			case "iif":
				r.iif = next
			case "lookup":
				r.table = next
			}
		}
		all = append(all, r)
	}
	return all, true
}

func number(s string, otherwise uint32) uint32 {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return otherwise
	}
	return uint32(n)
}

// prefix reads an address with or without its length; "all" is invalid.
func prefix(s string) netip.Prefix {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// diverting returns the policy rules that lead to the table of diverted packets, and whether that
// is known.
func (h *HostFacts) diverting() (all []policyRule, known bool) {
	rules, ok := h.policyRules()
	table := h.table()
	if !ok || table == "" {
		return nil, false
	}
	return slices.DeleteFunc(rules, func(r policyRule) bool {
		return r.table != table || r.iif != "" && h.nic() != "" && r.iif != h.nic()
	}), true
}

// routes returns the routes of the table of diverted packets, one a line, and whether they
// are known.
func (h *HostFacts) routes() (lines []string, known bool) {
	text, ok := h.answer("ip route show table ", "")
	if text == "(none)" {
		text = ""
	}
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' }), ok
}

// localDefault reports whether all addresses are local in that table.
func (h *HostFacts) localDefault() bool {
	routes, _ := h.routes()
	return slices.ContainsFunc(routes, func(r string) bool {
		return strings.HasPrefix(r, "local default") || strings.HasPrefix(r, "local 0.0.0.0/0") ||
			strings.HasPrefix(r, "local ::/0")
	})
}

// markedRoute is the kernel's answer to where a diverted packet goes.
func (h *HostFacts) markedRoute() string {
	for _, a := range h.Answers {
		if strings.Contains(a.Command, " route get ") && strings.Contains(a.Command, " mark ") {
			return a.Text
		}
	}
	return ""
}

// arriving is the kernel's answer to where a packet for FAKE goes that has no mark.
func (h *HostFacts) arriving() string {
	text, _ := h.answer("ip route get "+h.commandAfter("ip addr show to ")+" from ", " iif "+h.nic())
	return text
}

// fakeRoute is the way to FAKE, on LOCAL.
func (h *HostFacts) fakeRoute(fake netip.Addr) string {
	text, _ := h.answer("ip route get "+fake.String(), "")
	if text == "" {
		text, _ = h.answer("route -n get ", fake.String())
	}
	return text
}

// device is the interface of a route.
func device(route string) string {
	words := strings.Fields(route)
	if i := slices.Index(words, "dev"); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

// movedBy returns by how much a protocol counter of the host grew.
func (h *HostFacts) movedBy(name string) int64 {
	for _, m := range h.Moved {
		if m.Name == name {
			return m.By
		}
	}
	return 0
}

// forwards reports whether the host forwards packets of the family.
func (h *HostFacts) forwards(v6 bool) bool {
	if v6 {
		return h.sysctl("net.ipv6.conf.all.forwarding") == "1" || h.sysctl("net.inet6.ip6.forwarding") == "1"
	}
	return h.sysctl("net.ipv4.ip_forward") == "1" || h.sysctl("net.inet.ip.forwarding") == "1"
}

// A foreign chain is one of someone else's table, as "nft list chains" tells of it:
// its hook, its priority, and what its rules do.
type foreign struct {
	text     string
	hook     string
	priority int
	does     []string
}

// otherFamily is the family of the tables that packets of a family do not meet.
var otherFamily = map[pfconf.Family]string{pfconf.Inet: "ip6", pfconf.Inet6: "ip"}

// foreigns returns the chains of other tables than the driver's that packets of the family meet.
func (h *HostFacts) foreigns() []foreign {
	text, _ := h.answer("nft list ruleset", "")
	var all []foreign
	for line := range strings.Lines(text) {
		head, does, _ := strings.Cut(strings.TrimSpace(line), ": ")
		words := strings.Fields(head)
		if strings.HasPrefix(head, "table "+otherFamily[h.family()]+" ") {
			continue
		}
		f := foreign{text: head}
		for i := 0; i+1 < len(words); i++ {
			switch words[i] {
			case "hook":
				f.hook = words[i+1]
			case "priority":
				f.priority, _ = strconv.Atoi(words[i+1])
			}
		}
		f.does = strings.Split(does, ", ")
		if f.hook != "" {
			all = append(all, f)
		}
	}
	return all
}

// manglePriority is that of the driver's chains.
const manglePriority = -150

// chains are foreign chains at a hook, between priorities, that do one of some things.
type chains struct {
	hook     string
	from, to int
	does     []string
}

const lowest, highest = -1 << 31, 1<<31 - 1

// at are those of any priority.
func at(hook string, does ...string) chains { return chains{hook, lowest, highest, does} }

// dropping are those that drop something, wherever.
var dropping = []chains{
	at("prerouting", "drop", "reject"), at("input", "drop", "reject"), at("output", "drop", "reject"),
	at("postrouting", "drop", "reject"),
}

// having returns the texts of the host's foreign chains that are one of these. Where the cell's
// packets were traced it is those that they met.
func (h *HostFacts) having(some []chains) []string {
	var all []string
	for _, f := range h.foreigns() {
		i := slices.IndexFunc(some, f.is)
		if i >= 0 && h.met(f, some[i]) {
			all = append(all, f.text)
		}
	}
	return all
}

func (f foreign) is(c chains) bool {
	return f.hook == c.hook && c.from <= f.priority && f.priority <= c.to &&
		slices.ContainsFunc(f.does, func(d string) bool { return slices.Contains(c.does, d) })
}

// family of the answers.
func (h *HostFacts) family() pfconf.Family {
	for _, a := range h.Answers {
		if strings.HasPrefix(a.Command, "ip -6 ") {
			return pfconf.Inet6
		}
	}
	return pfconf.Inet
}
