package bsd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
)

// machine answers the commands of a lab as OpenBSD 7.7 and FreeBSD 12.1 do, and keeps what they
// change, so that a test can ask whether all is as it was.
type machine struct {
	t      *testing.T
	nics   []*fakeNIC
	jails  []string
	tables map[int][]string // OpenBSD's routing tables
	states []string         // of pf
	log    []string         // commands that changed something

	// fail is the number of the changing command that fails, counted from 1; after
	// tells that it does what it should before.
	fail  int
	after bool
	// tentative is how often IPv6 addresses are shown as tentative.
	tentative int
	noIPFW    bool
	noPF      bool
}

type fakeNIC struct {
	name, description string
	domain            int
	jail              string
	addresses         []netip.Prefix
}

// newMachine has what an OpenBSD host may have: addresses that a lab would have, a
// routing table and interfaces in its way.
func newMachine(t *testing.T) *machine {
	return &machine{t: t,
		nics: []*fakeNIC{
			{name: "lo0", addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"),
				netip.MustParsePrefix("::1/128")}},
			{name: "vio0", addresses: []netip.Prefix{netip.MustParsePrefix("10.188.1.2/24"),
				netip.MustParsePrefix("fd00:188:1::2/64")}},
			{name: "lo2"}, {name: "pair1", description: "another's"},
			{name: "vether3", domain: 3},
			{name: "epair0a"},
		},
		tables: map[int][]string{0: {"0.0.0.0/0", "10.188.3.0/24"}, 1: {"10.7.0.0/16"}, 2: nil, 3: nil, 4: nil},
		states: []string{"all tcp 10.188.1.2:22 <- 10.188.1.1:51602       ESTABLISHED:ESTABLISHED"},
	}
}

// String is all of the machine that a lab must leave as it was. A routing table that
// once was stays, empty.
func (m *machine) String() string {
	var b strings.Builder
	for _, n := range m.nics {
		fmt.Fprintf(&b, "%s %q in %d %q: %v\n", n.name, n.description, n.domain, n.jail, n.addresses)
	}
	fmt.Fprintf(&b, "%q\n", m.jails)
	for n := range MaxDomain + 1 {
		if len(m.tables[n]) > 0 {
			fmt.Fprintf(&b, "%d %q\n", n, m.tables[n])
		}
	}
	fmt.Fprintf(&b, "%q\n", m.states)
	return b.String()
}

var errKilled = errors.New("signal: killed")

func (m *machine) run(_ context.Context, c program.Command) (program.Output, error) {
	command := strings.Join(c.Argv, " ")
	if out, asked := m.answer(c.Argv); asked {
		return out, nil
	}
	m.log = append(m.log, command)
	if len(m.log) == m.fail && !m.after {
		return program.Output{}, errKilled
	}
	r := m.change(c.Argv)
	if len(m.log) == m.fail {
		return program.Output{}, errKilled
	}
	return r, nil
}

func failed(format string, args ...any) program.Output {
	return program.Output{Stderr: fmt.Sprintf(format, args...) + "\n", Status: 1}
}

// answer answers what changes nothing.
func (m *machine) answer(argv []string) (r program.Output, asked bool) {
	switch w := strings.Join(argv, " "); {
	case w == "ifconfig -a":
		for _, n := range m.nics {
			if n.jail == "" {
				r.Stdout += m.show(n)
			}
		}
	case argv[0] == "ifconfig" && len(argv) == 2:
		n := m.nic(argv[1], "")
		if n == nil {
			return failed("%s: no such interface", argv[1]), true
		}
		r.Stdout = m.show(n)
	case argv[0] == "route" && (argv[3] == "get" || argv[3] == "show"):
		n, _ := strconv.Atoi(strings.TrimPrefix(argv[2], "-T"))
		routes, there := m.tables[n]
		if !there {
			return failed("route: routing table %d: No such file or directory", n), true
		}
		if argv[3] == "show" {
			r.Stdout = "Routing tables\n" + strings.Join(routes, "\n")
			break
		}
		found := ""
		for _, to := range routes {
			if p := netip.MustParsePrefix(to); p.Contains(netip.MustParseAddr(argv[5])) && len(to) >= len(found) {
				found = to
			}
		}
		if found == "" {
			return failed("get host %s: not in table", argv[5]), true
		}
		r.Stdout = fmt.Sprintf("   route to: %s\ndestination: %s\n       mask: …\n", argv[5],
			netip.MustParsePrefix(found).Addr())
	case w == "pfctl -ss":
		for _, s := range m.states {
			r.Stdout += s + "\n"
		}
	default:
		return r, false
	}
	return r, true
}

func (m *machine) show(n *fakeNIC) string {
	s := n.name + ": flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST>"
	if n.domain != 0 {
		s += fmt.Sprintf(" rdomain %d", n.domain)
	}
	s += " mtu 1500\n"
	if n.description != "" {
		s += "\tdescription: " + n.description + "\n"
	}
	for _, p := range n.addresses {
		if p.Addr().Is4() {
			s += fmt.Sprintf("\tinet %v netmask 0x%08x\n", p.Addr(), uint32(0xffffffff)<<(32-p.Bits()))
			continue
		}
		s += fmt.Sprintf("\tinet6 %v prefixlen %d", p.Addr(), p.Bits())
		if m.tentative > 0 {
			m.tentative--
			s += " tentative"
		}
		s += "\n"
	}
	return s
}

func (m *machine) nic(name, jail string) *fakeNIC {
	i := slices.IndexFunc(m.nics, func(n *fakeNIC) bool { return n.name == name && n.jail == jail })
	if i < 0 {
		return nil
	}
	return m.nics[i]
}

// change does what a command does.
func (m *machine) change(argv []string) program.Output {
	jail := ""
	if argv[0] == "jexec" {
		jail, argv = argv[1], argv[2:]
		if !slices.Contains(m.jails, jail) {
			return failed("jexec: jail %q not found", jail)
		}
	}
	switch w := strings.Join(argv, " "); {
	case argv[0] == "sysctl" && m.noIPFW:
		return failed("sysctl: unknown oid '%s'", argv[1])
	case argv[0] == "pfctl" && jail != "" && m.noPF:
		return failed("pfctl: /dev/pf: No such file or directory")
	case argv[0] == "ipfw", argv[0] == "sysctl", argv[0] == "pfctl" && jail != "":
		return program.Output{}
	case argv[0] == "jail" && argv[1] == "-c":
		m.jails = append(m.jails, strings.TrimPrefix(argv[2], "name="))
		return program.Output{}
	case argv[0] == "jail" && argv[1] == "-r":
		i := slices.Index(m.jails, argv[2])
		if i < 0 {
			return failed("jail: %q not found", argv[2])
		}
		if n := slices.IndexFunc(m.nics, func(n *fakeNIC) bool {
			return n.jail == argv[2] &&
				n.name != "lo0"
		}); n >= 0 {
			m.t.Errorf("the jail %s is removed while it has %s", argv[2], m.nics[n].name)
		}
		m.jails = slices.Delete(m.jails, i, i+1)
		m.nics = slices.DeleteFunc(m.nics, func(n *fakeNIC) bool { return n.jail == argv[2] })
		return program.Output{}
	case argv[0] == "ifconfig":
		return m.ifconfig(argv[1], jail, argv[2:])
	case argv[0] == "route":
		return m.route(argv)
	case argv[0] == "pfctl":
		return m.kill(argv[1:])
	default:
		m.t.Errorf("no such command: %s", w)
		return failed("no such command")
	}
}

func (m *machine) ifconfig(name, jail string, do []string) program.Output {
	n := m.nic(name, jail)
	if n == nil && name == "lo0" && slices.Contains(m.jails, jail) {
		n = &fakeNIC{name: name, jail: jail}
		m.nics = append(m.nics, n)
	}
	switch {
	case do[0] == "create":
		ends := []string{name}
		if strings.HasPrefix(name, "epair") {
			ends = []string{name + "a", name + "b"}
		}
		for i, end := range ends {
			if slices.ContainsFunc(m.nics, func(n *fakeNIC) bool { return n.name == end }) {
				return failed("ifconfig: %s: SIOCIFCREATE: File exists", name)
			}
			made := &fakeNIC{name: end}
			if i == 0 {
				made.description = strings.Trim(do[2], `"`)
			}
			if len(do) == 5 {
				made.domain, _ = strconv.Atoi(do[4])
				if _, there := m.tables[made.domain]; !there {
					m.tables[made.domain] = nil
				}
			}
			m.nics = append(m.nics, made)
		}
	case do[0] == "-vnet":
		if n = m.nic(name, do[1]); n == nil || !slices.Contains(m.jails, do[1]) {
			return failed("ifconfig: SIOCSIFRVNET: Device not configured")
		}
		n.jail, n.addresses = "", nil
	case n == nil:
		return failed("ifconfig: interface %s does not exist", name)
	case do[0] == "destroy":
		m.nics = slices.DeleteFunc(m.nics, func(o *fakeNIC) bool {
			return o == n || strings.HasPrefix(name, "epair") && o.name == strings.TrimSuffix(name, "a")+"b"
		})
		m.tables[n.domain] = slices.DeleteFunc(m.tables[n.domain],
			func(string) bool { return n.domain != 0 && !strings.HasPrefix(name, "lo") })
	case do[0] == "vnet":
		n.jail = do[1]
	case do[0] == "inet" || do[0] == "inet6" && do[1] != "-ifdisabled":
		if len(do) < 2 {
			return failed("ifconfig: no address")
		}
		p := netip.MustParsePrefix(do[1])
		if !strings.HasPrefix(name, "lo") && p.Addr().Is6() && jail == "" {
			// fe80::5 on pair2, fe80::6 on pair3
			n.addresses = append(n.addresses,
				netip.MustParsePrefix("fe80::"+strconv.Itoa(int(name[len(name)-1]-'0')+3)+"/64"))
		}
		n.addresses = append(n.addresses, p)
	}
	return program.Output{}
}

func (m *machine) route(argv []string) program.Output {
	if argv[2] == "add" { // in a jail
		return program.Output{}
	}
	n, _ := strconv.Atoi(strings.TrimPrefix(argv[2], "-T"))
	m.tables[n] = append(m.tables[n], argv[6])
	return program.Output{}
}

// kill removes states as `pfctl [-V N] -k SOURCE -k DESTINATION` does.
func (m *machine) kill(args []string) program.Output {
	domain := 0
	if args[0] == "-V" {
		domain, _ = strconv.Atoi(args[1])
		args = args[2:]
	}
	before := len(m.states)
	from, to := netip.MustParsePrefix(args[1]), netip.MustParsePrefix(args[3])
	m.states = slices.DeleteFunc(m.states, func(line string) bool {
		all, err := pf.ParseStates(strings.NewReader(line+"\n"), false)
		if err != nil || len(all) != 1 {
			m.t.Errorf("%q: %v", line, err)
			return false
		}
		s := all[0]
		began, other := s.Near.Addr(), s.Far.Addr()
		if s.Direction == pfconf.In {
			began, other = other, began
		}
		return s.Domain == domain && from.Contains(began) && to.Contains(other)
	})
	return program.Output{Stderr: fmt.Sprintf("killed %d states from 1 sources and 1 destinations\n",
		before-len(m.states))}
}
