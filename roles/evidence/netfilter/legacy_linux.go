package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// xtables are the two of the old iptables, whose rules are no nf_tables'.
var xtables = []struct {
	program, family, names string
	domain, level          int
	six                    bool
}{
	{"iptables-legacy", "ip", "/proc/self/net/ip_tables_names", unix.AF_INET, unix.IPPROTO_IP, false},
	{"ip6tables-legacy", "ip6", "/proc/self/net/ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6, true},
}

// Options of linux/netfilter_ipv4/ip_tables.h; those of IPv6 have the same numbers.
const (
	soGetInfo    = 64 // IPT_SO_GET_INFO: struct ipt_getinfo
	soGetEntries = 65 // IPT_SO_GET_ENTRIES: struct ipt_get_entries
)

// legacy reads the rules of iptables-legacy and ip6tables-legacy. It asks for no table that is not
// there, because the kernel would load its module.
func (r *Ruleset) legacy() error {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return errors.New("rules of iptables-legacy are only read where pointers have 64 bits")
	}
	for _, x := range xtables {
		text, err := os.ReadFile(x.names)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(strings.Fields(string(text))) == 0 {
			continue
		}
		if err != nil {
			return err
		}
		fd, err := unix.Socket(x.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return fmt.Errorf("%s: raw socket: %w", x.program, err)
		}
		for _, table := range strings.Fields(string(text)) {
			info, blob, err := entries(fd, x.level, table)
			if err == nil {
				var chains []*Chain
				if chains, err = parseBlob(info, blob, x.six); err == nil {
					for _, c := range chains {
						c.Program, c.Family, c.Table = x.program, x.family, table
						if table == "nat" {
							c.Type = "nat"
						}
						if c.Hook != "" {
							c.Priority = priority(table, c.Hook)
						}
					}
					r.Chains = append(r.Chains, chains...)
				}
			}
			if err != nil {
				_ = unix.Close(fd)
				return fmt.Errorf("%s: table %s: %w", x.program, table, err)
			}
		}
		_ = unix.Close(fd)
	}
	return nil
}

// priority of a table's chains (enum nf_ip_hook_priorities, linux/netfilter_ipv4.h).
func priority(table, hook string) int {
	switch table {
	case "raw":
		return -300
	case "mangle":
		return -150
	case "nat":
		if hook == "prerouting" || hook == "output" {
			return -100
		}
		return 100
	case "security":
		return 50
	}
	return 0
}

// tries is how often a table is read that changes meanwhile.
const tries = 3

// entries asks for a table: its struct ipt_getinfo, and its entries.
func entries(fd, level int, table string) (info structure, blob []byte, err error) {
	for range tries {
		// char name[32], valid_hooks, hook_entry[5], underflow[5], num_entries, size
		info = make([]byte, 84)
		copy(info[:31], table)
		if err := getsockopt(fd, level, soGetInfo, info); err != nil {
			return nil, nil, err
		}
		size := int(info.u32(80))
		// char name[32], size, and entries at a multiple of 8
		b := make([]byte, 40+size)
		copy(b[:31], table)
		binary.NativeEndian.PutUint32(b[32:], uint32(size))
		if err = getsockopt(fd, level, soGetEntries, b); err == nil {
			return info, b[40:], nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return nil, nil, err
}

func getsockopt(fd, level, option int, b []byte) error {
	n := uint32(len(b))
	if _, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0); e != 0 {
		return e
	}
	return nil
}

// The layout of struct ipt_entry and ip6t_entry, where numbers of 64 bits are aligned.
type layout struct {
	address                                      int // its size
	nics, proto, flags, inverted, targetAt, size int
}

var layouts = map[bool]layout{
	false: {4, 16, 80, 82, 83, 88, 112},
	true:  {16, 64, 128, 131, 132, 140, 168},
}

// parseBlob reads the entries of a table into chains. An entry whose target is ERROR begins a chain
// of the user's, and jumps lead to entries by their offset.
func parseBlob(info structure, b []byte, six bool) ([]*Chain, error) {
	at := layouts[six]
	var all []*Chain
	starts := map[int]*Chain{} // by the offset of the first rule
	var chain *Chain
	underflow := map[int]*Chain{}
	base := map[int]string{}
	for i, hook := range hooks {
		if info.u32(32)&(1<<i) != 0 {
			base[int(info.u32(36+4*i))] = hook
		}
	}
	type jump struct {
		action *Action
		to     int
	}
	var jumps []jump
	for offset := 0; offset < len(b); {
		e := structure(b[offset:])
		targetAt, next := int(e.u16(at.targetAt)), int(e.u16(at.targetAt+2))
		if len(e) < at.size || next < targetAt+32 || targetAt < at.size || next > len(e) {
			return nil, fmt.Errorf("the entry at %d is cut", offset)
		}
		e = e[:next]
		name := nested{e[targetAt+2 : targetAt+31]}.text()
		data := e[targetAt+32:]
		if hook := base[offset]; hook != "" {
			chain = &Chain{Name: strings.ToUpper(hook), Hook: hook, Type: "filter"}
			all = append(all, chain)
			for i, h := range hooks {
				if h == hook {
					underflow[int(info.u32(56+4*i))] = chain
				}
			}
		}
		if name == "ERROR" {
			chain = &Chain{Name: nested{data}.text()}
			all = append(all, chain)
			starts[offset+next] = chain
			offset += next
			continue
		}
		if chain == nil {
			return nil, fmt.Errorf("the entry at %d is of no chain", offset)
		}
		verdict := int(int32(structure(data).u32(0)))
		if c := underflow[offset]; c != nil && c == chain && name == "" { // a policy
			c.Drops = verdict == -1 // -NF_DROP - 1
			offset += next
			continue
		}
		rule := &Rule{Chain: chain, Number: len(chain.Rules) + 1}
		for _, c := range entryConds(e, at, six) {
			rule.Steps = append(rule.Steps, Step{Cond: &c})
		}
		for m := at.size; m < targetAt; {
			size := int(e.u16(m))
			if size < 32 || m+size > targetAt {
				return nil, fmt.Errorf("a match of the entry at %d is cut", offset)
			}
			conds, _ := matchOf(nested{e[m+2 : m+31]}.text(), uint32(e.u8(m+31)), e[m+32:m+size])
			for _, c := range conds {
				rule.Steps = append(rule.Steps, Step{Cond: &c})
			}
			m += size
		}
		var actions []Action
		if name != "" {
			actions = targetOf(name, uint32(e.u8(targetAt+31)), data, six)
		} else {
			switch {
			case verdict == -1:
				actions = []Action{{Does: Drop, Text: "-j DROP"}}
			case verdict == -2:
				actions = []Action{{Does: Accept, Text: "-j ACCEPT"}}
			case verdict == -5: // XT_RETURN
				actions = []Action{{Does: Return, Text: "-j RETURN"}}
			case verdict < 0:
				actions = []Action{{Does: Ends, Text: "-j QUEUE"}}
			case verdict != offset+next: // a rule without a target goes on
				actions = []Action{{Does: Jump}}
				if flags := e.u8(at.flags); flags&2 != 0 && !six || flags&4 != 0 && six { // IPT_F_GOTO, IP6T_F_GOTO
					actions[0].Does = Goto
				}
			}
		}
		for i := range actions {
			rule.Steps = append(rule.Steps, Step{Action: &actions[i]})
			if name == "" && verdict >= 0 {
				jumps = append(jumps, jump{&actions[i], verdict})
			}
		}
		chain.Rules = append(chain.Rules, rule)
		offset += next
	}
	for _, j := range jumps {
		c := starts[j.to]
		if c == nil {
			return nil, fmt.Errorf("a rule leads to %d, where no chain begins", j.to)
		}
		j.action.Chain, j.action.Text = c.Name, "-j "+c.Name
	}
	// A chain of the user's ends in an entry that returns, and the table in one of no chain.
	var some []*Chain
	for _, c := range all {
		if c.Hook == "" {
			if n := len(c.Rules); n > 0 && c.Rules[n-1].Text() == "-j RETURN" {
				c.Rules = c.Rules[:n-1]
			} else if c.Name == "ERROR" {
				continue
			}
		}
		some = append(some, c)
	}
	return some, nil
}

// entryConds are what an entry asks for itself: struct ipt_ip and ip6t_ip6.
func entryConds(e structure, at layout, six bool) []Cond {
	var all []Cond
	inverted := e.u8(at.inverted)
	for i, c := range []Cond{{Field: Src, Text: "-s"}, {Field: Dst, Text: "-d"}} {
		a, _ := netip.AddrFromSlice(e[i*at.address : (i+1)*at.address])
		mask := e[(2+i)*at.address : (3+i)*at.address]
		ones := 0
		for _, m := range mask {
			for ; m&0x80 != 0; m <<= 1 {
				ones++
			}
		}
		if ones == 0 {
			continue
		}
		c.Nets, c.Not = []netip.Prefix{netip.PrefixFrom(a, ones)}, inverted&(8<<i) != 0 // IPT_INV_SRCIP, _DSTIP
		c.Text = bang(c.Not) + c.Text + " " + c.Nets[0].String()
		all = append(all, c)
	}
	for i, c := range []Cond{{Field: InName, Text: "-i"}, {Field: OutName, Text: "-o"}} {
		name, mask := nested{e[at.nics+16*i : at.nics+16*i+16]}.text(), e[at.nics+32+16*i:at.nics+32+16*i+16]
		asked := 0 // bytes of the name; with its end where it has no wildcard
		for asked < len(mask) && mask[asked] != 0 {
			asked++
		}
		switch {
		case asked == 0:
			continue
		case asked <= len(name):
			name = name[:asked] + "*"
		}
		c.Names, c.Not = []string{name}, inverted&(1<<i) != 0 // IPT_INV_VIA_IN, _OUT
		c.Text = bang(c.Not) + c.Text + " " + name
		all = append(all, c)
	}
	if proto := e.u16(at.proto); proto != 0 {
		c := Cond{Field: Proto, Not: inverted&0x40 != 0, Mask: last, In: just(proto)} // IPT_INV_PROTO
		c.Text = bang(c.Not) + "-p " + protoName(byte(proto))
		all = append(all, c)
	}
	if flags := e.u8(at.flags); !six && flags&1 != 0 { // IPT_F_FRAG
		all = append(all, Cond{Field: Packet, Text: "-f"})
	}
	return all
}
