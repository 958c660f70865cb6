package bsd

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// nic is an interface as ifconfig(8) shows it.
type nic struct {
	name        string
	domain      int // OpenBSD's routing domain
	description string
	addresses   []netip.Prefix
	waiting     bool   // an IPv6 address is tentative: it can't be used yet (RFC 4862, 5.4)
	duplicated  string // an IPv6 address that another host on the link has
}

// parseIfconfig reads what ifconfig prints of one interface or of all (OpenBSD 7.7,
// FreeBSD 12.1). Lines that say nothing of interest differ between releases and are
// passed over; an address that is not understood is an error.
func parseIfconfig(out string) ([]nic, error) {
	var nics []nic
	in := bufio.NewScanner(strings.NewReader(out))
	for in.Scan() {
		line := in.Text()
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if line[0] != '\t' && line[0] != ' ' {
			name, isNIC := strings.CutSuffix(f[0], ":")
			if !isNIC {
				return nil, fmt.Errorf("ifconfig: %q begins no interface", line)
			}
			n := nic{name: name}
			for i, word := range f {
				if word == "rdomain" && i+1 < len(f) {
					var err error
					if n.domain, err = strconv.Atoi(f[i+1]); err != nil {
						return nil, fmt.Errorf("ifconfig: %q: %w", line, err)
					}
				}
			}
			nics = append(nics, n)
			continue
		}
		if len(nics) == 0 {
			return nil, fmt.Errorf("ifconfig: %q before any interface", line)
		}
		n := &nics[len(nics)-1]
		switch f[0] {
		case "description:":
			n.description = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "description:"))
		case "inet", "inet6":
			p, err := address(f)
			if err != nil {
				return nil, fmt.Errorf("ifconfig: %q: %w", line, err)
			}
			n.addresses = append(n.addresses, p)
			for _, word := range f {
				switch word {
				case "tentative":
					n.waiting = true
				case "duplicated":
					n.duplicated = p.Addr().String()
				}
			}
		}
	}
	return nics, in.Err()
}

// address reads `inet 10.1.2.3 netmask 0xffffff00 …`, `inet 10.1.2.3 --> 10.1.2.4 netmask …` or
// `inet6 fd00::1 prefixlen 64 …`.
func address(f []string) (netip.Prefix, error) {
	if len(f) < 2 {
		return netip.Prefix{}, fmt.Errorf("no address")
	}
	a, err := netip.ParseAddr(f[1])
	if err != nil {
		return netip.Prefix{}, err
	}
	bits := a.BitLen()
	for i := 2; i+1 < len(f); i++ {
		switch f[i] {
		case "netmask":
			mask, err := strconv.ParseUint(strings.TrimPrefix(f[i+1], "0x"), 16, 32)
			if err != nil {
				return netip.Prefix{}, err
			}
			for bits = 0; mask&0x80000000 != 0; mask = mask << 1 & 0xffffffff {
				bits++
			}
		case "prefixlen":
			if bits, err = strconv.Atoi(f[i+1]); err != nil {
				return netip.Prefix{}, err
			}
		}
	}
	p := netip.PrefixFrom(a.WithZone(""), bits)
	if !p.IsValid() {
		return p, fmt.Errorf("no prefix of %d bits", bits)
	}
	return p, nil
}

// interfaces lists all interfaces.
func (t tools) interfaces() ([]nic, error) {
	out, err := t.ask("ifconfig", "-a")
	if err != nil {
		return nil, err
	}
	return parseIfconfig(out)
}

// nic returns one interface, nil if there is none of that name.
func (t tools) nic(name string) (*nic, error) {
	out, err := t.ask("ifconfig", name)
	if said(err, "no such interface", "does not exist") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	nics, err := parseIfconfig(out)
	if err != nil {
		return nil, err
	}
	if len(nics) != 1 || nics[0].name != name {
		return nil, fmt.Errorf("ifconfig %s: it told of something else: %q", name, out)
	}
	return &nics[0], nil
}

// inet is ifconfig's and route's word for an address's family.
func inet(a netip.Addr) string { return pfconf.FamilyOf(a).String() }

// DomainOf returns the routing domain of an interface on OpenBSD.
func DomainOf(ctx context.Context, run program.Runner, name string) (int, error) {
	n, err := tools{ctx, run}.nic(name)
	if err == nil && n == nil {
		err = fmt.Errorf("there is no interface %s", name)
	}
	if err != nil {
		return 0, err
	}
	return n.domain, nil
}
