package netfilter

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cond asks whether a value is in one of the intervals.
func (v value) cond(list []interval, not bool) Cond {
	c := Cond{Field: v.field, Not: not}
	var said []string
	for _, i := range list {
		text, ok := v.add(&c, i)
		if !ok {
			c.Field = Packet
			text = fmt.Sprintf("0x%x-0x%x", i.from, i.to)
		}
		said = append(said, text)
	}
	op := " "
	if not != (v.field == State && v.and != nil) { // of a state's bits one is asked for by "not 0"
		op = " != "
	}
	if v.field == 0 {
		c.Field = Unknown
	}
	if v.name == "" {
		v.name = "?"
	}
	switch {
	case len(said) == 1:
		c.Text = v.name + op + said[0]
	case len(said) > 6:
		c.Text = v.name + op + "{ " + strings.Join(said[:6], ", ") + ", … }"
	default:
		c.Text = v.name + op + "{ " + strings.Join(said, ", ") + " }"
	}
	if v.and != nil && v.field != Src && v.field != Dst && v.field != State {
		c.Text = fmt.Sprintf("%s & 0x%x%s", v.name, v.number(v.and), c.Text[len(v.name):])
	}
	return c
}

// add adds an interval to a condition and gives its text.
func (v value) add(c *Cond, i interval) (string, bool) {
	switch v.field {
	case InName, OutName:
		if v.size == 4 {
			n := native32(i.from)
			link, err := net.InterfaceByIndex(int(n))
			if err != nil {
				c.Names = append(c.Names, fmt.Sprintf("#%d", n)) // one that is gone
				return c.Names[len(c.Names)-1], true
			}
			c.Names = append(c.Names, link.Name)
			return link.Name, true
		}
		name := nested{i.from}.text()
		if len(i.from) < unix.IFNAMSIZ {
			name += "*"
		}
		c.Names = append(c.Names, name)
		return fmt.Sprintf("%q", name), true
	case Src, Dst:
		nets, text := v.nets(i)
		c.Nets = append(c.Nets, nets...)
		return text, nets != nil
	case Packet, Unknown, Sender, 0:
		return v.show(i), true
	}
	if len(i.from) > 8 || len(i.to) > 8 {
		return "", false
	}
	from, to := v.number(i.from), v.number(i.to)
	if v.and != nil {
		for _, b := range v.xor {
			if b != 0 {
				return "", false
			}
		}
		c.Mask = v.number(v.and)
		if from != to {
			return "", false
		}
	} else {
		c.Mask = last
	}
	c.In = c.In.or(spans{{from, to}})
	return v.show(i), true
}

func (v value) number(b []byte) uint64 {
	switch {
	case len(b) == 4 && !v.network:
		return uint64(binary.NativeEndian.Uint32(b))
	case len(b) > 8:
		return 0
	}
	var n uint64
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	return n
}

// show writes an interval.
func (v value) show(i interval) string {
	if len(i.from) > 8 || len(i.to) > 8 {
		return fmt.Sprintf("0x%x", i.from)
	}
	from, to := v.number(i.from), v.number(i.to)
	text := func(n uint64) string { return fmt.Sprint(n) }
	switch v.field {
	case Mark, CTMark:
		text = func(n uint64) string { return fmt.Sprintf("0x%x", n) }
	case Proto:
		text = func(n uint64) string { return protoName(byte(n)) }
	case NFProto:
		text = func(n uint64) string { return map[uint64]string{2: "ipv4", 10: "ipv6"}[n] }
	case AddrType:
		text = func(n uint64) string {
			return map[uint64]string{1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast"}[n]
		}
	case State:
		if v.and != nil {
			from, to = v.number(v.and), v.number(v.and)
		}
		text = stateNames
	}
	if from == to {
		return text(from)
	}
	return text(from) + "-" + text(to)
}

func stateNames(n uint64) string {
	var all []string
	for _, s := range []struct {
		bit  uint64
		name string
	}{{stateInvalid, "invalid"}, {stateEstablished, "established"}, {stateRelated, "related"}, {stateNew, "new"}, {stateUntracked, "untracked"}} {
		if n&s.bit != 0 {
			all = append(all, s.name)
		}
	}
	return strings.Join(all, ",")
}

func protoName(n byte) string {
	if name := map[byte]string{1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp"}[n]; name != "" {
		return name
	}
	return fmt.Sprint(n)
}

// nets are the prefixes of an interval of addresses: one that nft made of a prefix is one again.
func (v value) nets(i interval) ([]netip.Prefix, string) {
	long := 4
	if strings.HasPrefix(v.name, "ip6") {
		long = 16
	}
	full := func(b []byte, fill byte) []byte {
		b = append([]byte(nil), b...)
		for len(b) < long {
			b = append(b, fill)
		}
		return b[:long]
	}
	if len(i.from) > long || len(i.to) > long {
		return nil, ""
	}
	from, to := full(i.from, 0), full(i.to, 0xff)
	if v.and != nil {
		mask := full(v.and, 0)
		for k := range to {
			to[k] |= ^mask[k]
		}
	}
	a, _ := netip.AddrFromSlice(from)
	b, _ := netip.AddrFromSlice(to)
	for bits := 0; bits <= long*8; bits++ {
		p := netip.PrefixFrom(a, bits)
		if p.Masked().Addr() == a && lastOf(p) == b {
			if bits == long*8 {
				return []netip.Prefix{p}, a.String()
			}
			return []netip.Prefix{p}, p.String()
		}
	}
	// One that is no prefix: its two ends stand for it.
	return []netip.Prefix{netip.PrefixFrom(a, long*8), netip.PrefixFrom(b, long*8)}, a.String() + "-" + b.String()
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// target takes where a rule leads.
func (a *Action) target(address, port value, hasAddress, hasPort bool) {
	if hasAddress {
		if len(address.constants) == 1 {
			a.Address, _ = netip.AddrFromSlice(address.constants[0])
			if a.Address.IsUnspecified() {
				a.Address = netip.Addr{}
			}
		} else {
			a.Unknown = "a map chooses its address"
		}
	}
	if hasPort {
		for _, b := range port.constants {
			if len(b) >= 2 {
				a.Ports = append(a.Ports, binary.BigEndian.Uint16(b))
			}
		}
		slices.Sort(a.Ports)
		if len(a.Ports) == 0 {
			a.Unknown = "a map chooses its port"
		}
	}
	a.Text += " to " + a.to()
}

func (a *Action) to() string {
	var all []string
	for _, p := range a.Ports {
		all = append(all, fmt.Sprint(p))
	}
	text := strings.Join(all, ",")
	if a.Address.Is6() {
		text = "[" + a.Address.String() + "]:" + text
	} else if a.Address.IsValid() {
		text = a.Address.String() + ":" + text
	} else {
		text = ":" + text
	}
	return strings.TrimSuffix(text, ":")
}

// ranged takes the end of a range of ports.
func (a *Action) ranged(port value, is bool) {
	if !is || len(a.Ports) != 1 || len(port.constants) != 1 || len(port.constants[0]) < 2 {
		return
	}
	if end := binary.BigEndian.Uint16(port.constants[0]); end > a.Ports[0] {
		if end-a.Ports[0] > 64 {
			a.Unknown = "a port of a range is chosen"
			return
		}
		for p := a.Ports[0] + 1; p != 0 && p <= end; p++ {
			a.Ports = append(a.Ports, p)
		}
	}
}
