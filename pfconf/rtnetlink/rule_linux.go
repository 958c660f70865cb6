package rtnetlink

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// PolicyRule is a policy rule (ip-rule(8)).
type PolicyRule struct {
	Family   uint8  // AF_INET or AF_INET6
	Priority uint32 // 0 lets the kernel choose when a rule is added
	Invert   bool
	Src, Dst netip.Prefix
	Mark     uint32
	Mask     uint32 // of Mark; 0 stands for all bits when a rule is added
	In, Out  string // names of interfaces
	Table    int
	Action   uint8 // FR_ACT_*, such as RTN_BLACKHOLE; 0 stands for ToTable when a rule is added
	Protocol uint8 // RTPROT_*
}

// Actions of rules, uapi/linux/fib_rules.h. The others have the numbers of RTN_*.
const (
	ToTable = 1
	Goto    = 2
)

const ruleInvert = 2 // FIB_RULE_INVERT

// message is a struct fib_rule_hdr: family, lengths of destination and source, type of service,
// table, two reserved bytes, action, flags.
func (r PolicyRule) message(action uint8) *message {
	bits := func(p netip.Prefix) uint8 { return uint8(max(p.Bits(), 0)) }
	table := uint8(unix.RT_TABLE_UNSPEC)
	if r.Table < 256 {
		table = uint8(r.Table)
	}
	var flags uint32
	if r.Invert {
		flags = ruleInvert
	}
	b := []byte{r.Family, bits(r.Dst), bits(r.Src), 0, table, 0, 0, action}
	m := newMessage(binary.NativeEndian.AppendUint32(b, flags))
	m.addr(unix.FRA_DST, r.Dst.Addr())
	m.addr(unix.FRA_SRC, r.Src.Addr())
	number(m.attributes, unix.FRA_PRIORITY, r.Priority)
	if r.Mark != 0 || r.Mask != 0 {
		m.attributes.Uint32(unix.FRA_FWMARK, r.Mark)
	}
	number(m.attributes, unix.FRA_FWMASK, r.Mask)
	if r.Table >= 256 {
		number(m.attributes, unix.FRA_TABLE, r.Table)
	}
	text(m.attributes, unix.FRA_IIFNAME, r.In)
	text(m.attributes, unix.FRA_OIFNAME, r.Out)
	if r.Protocol != 0 {
		m.attributes.Uint8(unix.FRA_PROTOCOL, r.Protocol)
	}
	return m
}

func parseRule(b []byte) (r PolicyRule, err error) {
	var src, dst netip.Addr
	err = parse(b, unix.SizeofRtMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.FRA_DST:
			dst = address(ad)
		case unix.FRA_SRC:
			src = address(ad)
		case unix.FRA_PRIORITY:
			r.Priority = ad.Uint32()
		case unix.FRA_FWMARK:
			r.Mark = ad.Uint32()
		case unix.FRA_FWMASK:
			r.Mask = ad.Uint32()
		case unix.FRA_TABLE:
			r.Table = int(ad.Uint32())
		case unix.FRA_IIFNAME:
			r.In = ad.String()
		case unix.FRA_OIFNAME:
			r.Out = ad.String()
		case unix.FRA_PROTOCOL:
			r.Protocol = ad.Uint8()
		}
	})
	if err != nil {
		return r, err
	}
	r.Family, r.Action, r.Invert = b[0], b[7], native32(b[8:])&ruleInvert != 0
	r.Table = cmp.Or(r.Table, int(b[4]))
	if dst.IsValid() {
		r.Dst, err = prefix(dst, b[1])
	}
	if src.IsValid() && err == nil {
		r.Src, err = prefix(src, b[2])
	}
	return r, err
}

// String returns the rule as `ip rule` shows it.
func (r PolicyRule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:\t", r.Priority)
	if r.Invert {
		b.WriteString("not ")
	}
	b.WriteString("from ")
	if r.Src.IsValid() {
		b.WriteString(r.Src.String())
	} else {
		b.WriteString("all")
	}
	if r.Dst.IsValid() {
		b.WriteString(" to " + r.Dst.String())
	}
	if r.Mark != 0 || r.Mask != 0 {
		fmt.Fprintf(&b, " fwmark 0x%x", r.Mark)
		if r.Mask != 0xffffffff {
			fmt.Fprintf(&b, "/0x%x", r.Mask)
		}
	}
	if r.In != "" {
		b.WriteString(" iif " + r.In)
	}
	if r.Out != "" {
		b.WriteString(" oif " + r.Out)
	}
	if r.Table != 0 {
		b.WriteString(" lookup " + TableName(r.Table))
	} else if r.Action > Goto {
		b.WriteString(" " + TypeName(r.Action))
	}
	if r.Protocol != 0 && r.Protocol != unix.RTPROT_KERNEL && r.Protocol != unix.RTPROT_BOOT {
		fmt.Fprintf(&b, " proto %d", r.Protocol)
	}
	return b.String()
}

// TableName returns ip-route(8)'s name of a routing table.
func TableName(n int) string {
	switch n {
	case unix.RT_TABLE_LOCAL:
		return "local"
	case unix.RT_TABLE_MAIN:
		return "main"
	case unix.RT_TABLE_DEFAULT:
		return "default"
	}
	return fmt.Sprint(n)
}

// TypeName returns ip-route(8)'s name of a type of routes (RTN_*, linux/rtnetlink.h).
func TypeName(n uint8) string {
	names := []string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable",
		"prohibit", "throw", "nat"}
	if int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprintf("type %d", n)
}

// Rules lists the policy rules of AF_INET or AF_INET6 in the kernel's order.
func (c *Conn) Rules(family uint8) ([]PolicyRule, error) {
	var all []PolicyRule
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = family
	err := c.dump(unix.RTM_GETRULE, newMessage(header), func(b []byte) error {
		r, err := parseRule(b)
		if r.Family == family {
			all = append(all, r)
		}
		return err
	})
	return all, err
}

// AddRule adds the rule.
func (c *Conn) AddRule(r PolicyRule) error {
	return c.set(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r.message(cmp.Or(r.Action, ToTable)))
}

// DeleteRule deletes the first rule that is like r in all that r has; that there is none is
// unix.ENOENT.
func (c *Conn) DeleteRule(r PolicyRule) error { return c.set(unix.RTM_DELRULE, 0, r.message(r.Action)) }
