package bsd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// recorder is a journal that has what was recorded. It has each change before it is made.
type recorder struct{ steps []pfconf.Undo }

func (r *recorder) record(u pfconf.Undo) error {
	r.steps = append(r.steps, u)
	return nil
}

// traffic leaves states such as a run leaves in the lab that newMachine gets, as OpenBSD 7.7
// listed them.
func (m *machine) traffic() {
	m.states = append(m.states,
		"all icmp (4) 10.188.5.1:45344 -> (4) 10.188.5.2:8       0:0",
		"all icmp 10.188.5.2:8 <- 10.188.5.1:45344       0:0",
		"all tcp (4) 10.188.5.1:37968 -> (4) 10.188.6.2:27430       SYN_SENT:CLOSED",
		"all tcp 10.188.6.2:27430 <- 10.188.5.1:37968       CLOSED:SYN_SENT",
		"all 254 (4) fd00:188:5::1 -> (4) fd00:188:6::2b       SINGLE:NO_TRAFFIC",
		"all udp fd00:188:5::2[32238] -> fd00:188:5::1[27548]       SINGLE:NO_TRAFFIC",
		"all ipv6-icmp (4) ::[48709] -> (4) fd00:188:5::1[135]       0:0",
		"all ipv6-icmp fd00:188:5::1[135] <- ::[48709]       0:0",
		"all ipv6-icmp (4) ::[48709] -> (4) fe80::5[135]       0:0",
		"all ipv6-icmp fe80::5[135] <- ::[48709]       0:0",
		"all ipv6-icmp fe80::6[1] -> ff02::1:ff00:2[130]       0:0",
	)
}

// forwarded leaves states such as a run leaves in a lab with a third host.
func (m *machine) forwarded() {
	m.states = append(m.states,
		"all tcp (4) 10.188.5.1:37968 -> (4) 10.188.8.2:27430       TIME_WAIT:TIME_WAIT",
		"all tcp 10.188.8.2:27430 <- 10.188.5.1:37968       TIME_WAIT:TIME_WAIT",
		"all tcp 10.188.5.1:37968 -> 10.188.8.2:27430       TIME_WAIT:TIME_WAIT",
		"all tcp (5) 10.188.8.2:27430 <- (5) 10.188.5.1:37968       TIME_WAIT:TIME_WAIT",
		"all ipv6-icmp (5) fe80::10[1] -> (5) ff02::1:ff00:2[130]       0:0",
		"all ipv6-icmp (4) ::[48709] -> (4) fd00:188:7::1[135]       0:0",
		"all ipv6-icmp ::[48709] -> fd00:188:8::1[135]       0:0",
		"all udp (5) fd00:188:8::2[27430] <- (5) fd00:188:5::1[37968]       NO_TRAFFIC:SINGLE",
	)
}

// TestDomains: numbers and networks that someone has are left alone, and the commands are those
// that were seen to work on OpenBSD.
func TestDomains(t *testing.T) {
	for _, test := range []struct {
		name   string
		config Layout
		want   []string
	}{
		{"REMOTE in domain 0", Layout{}, []string{
			// 1 is a table with routes, lo2 is another's, 3 has an interface, pair1 is another's.
			"ifconfig lo4 create description pfdivert lab rdomain 4",
			"ifconfig pair2 create description pfdivert lab rdomain 4",
			"ifconfig pair3 create description pfdivert lab rdomain 0",
			"ifconfig pair2 patch pair3",
			// 10.188.1.0/24 is an interface's, to 10.188.3.0/24 there is a route.
			"ifconfig pair2 inet 10.188.5.1/24 up",
			"ifconfig pair3 inet 10.188.5.2/24 up",
			"ifconfig pair2 inet6 fd00:188:5::1/64 up",
			"ifconfig pair3 inet6 fd00:188:5::2/64 up",
			"route -n -T4 add -inet -net 10.188.6.0/24 10.188.5.2",
			"route -n -T4 add -inet6 -net fd00:188:6::/64 fd00:188:5::2",
		}},
		{"a third host", Layout{Router: true}, []string{
			"ifconfig lo4 create description pfdivert lab rdomain 4",
			"ifconfig lo5 create description pfdivert lab rdomain 5",
			"ifconfig pair2 create description pfdivert lab rdomain 4",
			"ifconfig pair3 create description pfdivert lab rdomain 0",
			"ifconfig pair2 patch pair3",
			"ifconfig pair2 inet 10.188.5.1/24 up",
			"ifconfig pair3 inet 10.188.5.2/24 up",
			"ifconfig pair2 inet6 fd00:188:5::1/64 up",
			"ifconfig pair3 inet6 fd00:188:5::2/64 up",
			// A second cable.
			"ifconfig pair4 create description pfdivert lab rdomain 4",
			"ifconfig pair5 create description pfdivert lab rdomain 0",
			"ifconfig pair4 patch pair5",
			"ifconfig pair4 inet 10.188.7.1/24 up",
			"ifconfig pair5 inet 10.188.7.2/24 up",
			"ifconfig pair4 inet6 fd00:188:7::1/64 up",
			"ifconfig pair5 inet6 fd00:188:7::2/64 up",
			// A third host behind REMOTE.
			"ifconfig pair6 create description pfdivert lab rdomain 0",
			"ifconfig pair7 create description pfdivert lab rdomain 5",
			"ifconfig pair6 patch pair7",
			"ifconfig pair6 inet 10.188.8.1/24 up",
			"ifconfig pair7 inet 10.188.8.2/24 up",
			"ifconfig pair6 inet6 fd00:188:8::1/64 up",
			"ifconfig pair7 inet6 fd00:188:8::2/64 up",
			"route -n -T4 add -inet -net 10.188.6.0/24 10.188.5.2",
			"route -n -T4 add -inet -net 10.188.8.0/24 10.188.5.2",
			"route -n -T5 add -inet -net 10.188.5.0/24 10.188.8.1",
			"route -n -T4 add -inet6 -net fd00:188:6::/64 fd00:188:5::2",
			"route -n -T4 add -inet6 -net fd00:188:8::/64 fd00:188:5::2",
			"route -n -T5 add -inet6 -net fd00:188:5::/64 fd00:188:8::1",
		}},
		{"REMOTE in a new domain, one FAKE", Layout{Domain: 7, Single: true}, []string{
			"ifconfig lo4 create description pfdivert lab rdomain 4",
			"ifconfig lo7 create description pfdivert lab rdomain 7",
			"ifconfig lo7 inet 127.0.0.1/8 up",
			"ifconfig lo7 inet6 ::1/128",
			"ifconfig pair2 create description pfdivert lab rdomain 4",
			"ifconfig pair3 create description pfdivert lab rdomain 7",
			"ifconfig pair2 patch pair3",
			// No route of domain 7 is in the way.
			"ifconfig pair2 inet 10.188.3.1/24 up",
			"ifconfig pair3 inet 10.188.3.2/24 up",
			"ifconfig pair2 inet6 fd00:188:3::1/64 up",
			"ifconfig pair3 inet6 fd00:188:3::2/64 up",
			"route -n -T4 add -inet -host 10.188.4.9 10.188.3.2",
			"route -n -T4 add -inet6 -host fd00:188:4::9 fd00:188:3::2",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, r := newMachine(t), &recorder{}
			before := m.String()
			m.tentative = 9
			l, err := Build(t.Context(), "openbsd", test.config, m.run, r.record)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(m.log, test.want) {
				t.Errorf("commands\n%s\nwant\n%s", strings.Join(m.log, "\n"), strings.Join(test.want, "\n"))
			}
			if m.tentative > 0 {
				t.Error("it did not wait until the addresses can be used")
			}
			remote := fmt.Sprint(test.config.Domain)
			if !slices.Equal(l.Local.Args, []string{"-in-lab", "-rdomain", "4"}) ||
				!slices.Equal(l.Remote.Args, []string{"-in-lab", "-rdomain", remote}) {
				t.Errorf("agents: %+v, %+v", l.Local, l.Remote)
			}
			second := Second{}
			if test.config.Router {
				second = Second{
					Gateways: map[pfconf.Family]netip.Addr{pfconf.Inet: netip.MustParseAddr("10.188.7.1"),
						pfconf.Inet6: netip.MustParseAddr("fd00:188:7::1")},
					Mirrors: map[pfconf.Family]netip.Addr{pfconf.Inet: netip.MustParseAddr("10.188.8.2"),
						pfconf.Inet6: netip.MustParseAddr("fd00:188:8::2")},
					Domain: 5,
				}
			}
			if !reflect.DeepEqual(l.Second, second) {
				t.Errorf("beyond REMOTE: %+v, want %+v", l.Second, second)
			}
			if got := l.Local.Command(); !slices.Equal(got, []string{"route", "-T4", "exec"}) {
				t.Errorf("a command on LOCAL: %q", got)
			}
			if test.config.Domain == 0 {
				m.traffic()
			}
			if test.config.Router {
				m.forwarded()
			}
			if err := l.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if got := m.String(); got != before {
				t.Errorf("after the lab:\n%s\nbefore:\n%s", got, before)
			}
		})
	}
}

// TestBesideALab: a lab is planned on OpenBSD 7.7 while another one with a third host stands. What
// the host answered is verbatim.
func TestBesideALab(t *testing.T) {
	shown, err := os.ReadFile("testdata/openbsd-router.txt")
	if err != nil {
		t.Fatal(err)
	}
	const absent = "route: routing table %s: No such file or directory\n"
	const get = `   route to: %s
destination: %s
       mask: %[2]s
    gateway: %[3]s
  interface: vio0
 if address: %[4]s
   priority: 8 (static)
      flags: <UP,GATEWAY,DONE,STATIC>
     use       mtu    expire
     334         0         0 
`
	run := func(_ context.Context, c program.Command) (program.Output, error) {
		switch w := strings.Join(c.Argv, " "); {
		case w == "ifconfig -a":
			return program.Output{Stdout: string(shown)}, nil
		case w == "route -n -T3 show" || w == "route -n -T4 show":
			return program.Output{Stderr: fmt.Sprintf(absent, w[10:11]), Status: 1}, nil
		case strings.HasPrefix(w, "route -n -T0 get -inet 10."):
			return program.Output{Stdout: fmt.Sprintf(get, c.Argv[5], "0.0.0.0", "10.188.1.1", "10.188.1.2")}, nil
		case strings.HasPrefix(w, "route -n -T0 get -inet6 fd00:"):
			return program.Output{Stdout: fmt.Sprintf(get, c.Argv[5], "::", "fd00:188:1::1", "fd00:188:1::2")}, nil
		default:
			t.Errorf("it was asked %q", w)
			return program.Output{}, errKilled
		}
	}
	host := tools{t.Context(), run}
	nics, err := host.interfaces()
	if err != nil {
		t.Fatal(err)
	}
	d, err := host.plan(nics, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	want := domainLab{local: 3, mirror: 4, loops: []string{"lo3", "lo4"}, cables: []domainCable{
		{domainEnd{"pair7", 3}, domainEnd{"pair8", 0}}, {domainEnd{"pair9", 3}, domainEnd{"pair10", 0}},
		{domainEnd{"pair11", 0}, domainEnd{"pair12", 4}}}}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("%+v, want %+v", d, want)
	}
	all, err := host.chooseNetworks(nics, 0, 4)
	if err != nil {
		t.Fatal(err)
	}
	if first, last := all[0][pfconf.Inet].String(), all[3][pfconf.Inet6].String(); first != "10.188.7.0/24" ||
		last != "fd00:188:a::/64" {
		t.Errorf("%s to %s", first, last)
	}
}

// TestNoPlan has hosts on which a lab can't be built.
func TestNoPlan(t *testing.T) {
	for _, test := range []struct {
		name, system string
		config       Layout
		change       func(*machine)
		want, hint   string
	}{
		{"the domain's table is in use", "openbsd", Layout{Domain: 1}, nil,
			"routing domain 1 can't be made for REMOTE", "-rdomain"},
		{"its loopback interface is", "openbsd", Layout{Domain: 2}, nil, "routing domain 2 can't be made for REMOTE",
			"-rdomain"},
		{"a domain without 127.0.0.1", "openbsd", Layout{Domain: 3}, nil, "no 127.0.0.1",
			"ifconfig lo3 inet 127.0.0.1/8"},
		{"one domain for two hosts", "openbsd", Layout{Router: true}, func(m *machine) {
			for n := 5; n <= MaxDomain; n++ {
				m.tables[n] = []string{"10.9.0.0/16"}
			}
		}, "no routing domain of 1 to 255 is free for the third host", "REMOTE_SSH"},
		{"a route to everything", "openbsd", Layout{}, func(m *machine) {
			m.tables[0] = []string{"10.0.0.0/8",
				"198.0.0.0/8"}
		}, "routes to all networks", "REMOTE_SSH"},
		{"FreeBSD has no domains", "freebsd", Layout{Domain: 1}, nil, "no routing domains", ""},
		{"no ipfw", "freebsd", Layout{}, func(m *machine) { m.noIPFW = true }, "no ipfw", "kldload ipfw"},
		{"another system", "linux", Layout{}, nil, "can't be both hosts", ""},
	} {
		m, r := newMachine(t), &recorder{}
		if test.change != nil {
			test.change(m)
		}
		before := m.String()
		l, err := Build(t.Context(), test.system, test.config, m.run, r.record)
		var h hinted
		errors.As(err, &h)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(h.hint, test.hint) {
			t.Errorf("%s: %v (hint %q)", test.name, err, h.hint)
		}
		if err := l.Close(t.Context()); err != nil || m.String() != before {
			t.Errorf("%s: %v, after it:\n%s\nbefore:\n%s", test.name, err, m, before)
		}
	}
}

// A crowded host gets a network of RFC 2544's.
func TestNetworks(t *testing.T) {
	m := newMachine(t)
	m.tables[0] = append(m.tables[0], "10.0.0.0/8")
	l, err := Build(t.Context(), "openbsd", Layout{}, m.run, (&recorder{}).record)
	if err != nil {
		t.Fatal(err)
	}
	if a := l.Addresses[pfconf.Inet]; a.Local.String() != "198.18.1.1" || a.Fakes.String() != "198.18.2.0/24" {
		t.Errorf("%+v", a)
	}
	for n := 1; n < 512; n += 2 {
		all := networks(n, 4)
		for i, one := range all {
			for _, f := range pfconf.Families {
				if one[f].Masked() != one[f] {
					t.Errorf("%d: %v", n, one[f])
				}
				for _, other := range all[:i] {
					if one[f].Overlaps(other[f]) {
						t.Errorf("%d: %v and %v", n, one[f], other[f])
					}
				}
			}
		}
	}
}

// TestJails: as on FreeBSD, in the order that was seen to work.
func TestJails(t *testing.T) {
	m, r := newMachine(t), &recorder{}
	before := m.String()
	b := &builder{ctx: t.Context(), run: m.run, journal: r.record, lab: &Lab{run: m.run}}
	// Not seen from here: the epair1 of another jail.
	m.nics = append(m.nics, &fakeNIC{name: "epair1a", jail: "web"})
	if err := b.jails(Layout{PF: true, Router: true}, 77); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"jail -c name=pfdivert77local vnet persist path=/ host=inherit",
		"jail -c name=pfdivert77remote vnet persist path=/ host=inherit",
		"ifconfig epair1 create description pfdivert lab",
		"ifconfig epair2 create description pfdivert lab",
		"ifconfig epair2a vnet pfdivert77local",
		"jexec pfdivert77local ifconfig lo0 inet 127.0.0.1/8 up",
		"jexec pfdivert77local ifconfig lo0 inet6 ::1/128",
		"jexec pfdivert77local ifconfig epair2a inet6 -ifdisabled no_dad up",
		"jexec pfdivert77local ifconfig epair2a inet 10.188.1.1/24",
		"jexec pfdivert77local ifconfig epair2a inet6 fd00:188:1::1/64",
		"jexec pfdivert77local sysctl net.inet.ip.maxfragsperpacket=64",
		"jexec pfdivert77local sysctl net.inet6.ip6.fw.deny_unknown_exthdrs=0",
		"jexec pfdivert77local ipfw -q add 65534 allow ip from any to any",
		"ifconfig epair2b vnet pfdivert77remote",
		"jexec pfdivert77remote ifconfig lo0 inet 127.0.0.1/8 up",
		"jexec pfdivert77remote ifconfig lo0 inet6 ::1/128",
		"jexec pfdivert77remote ifconfig epair2b inet6 -ifdisabled no_dad up",
		"jexec pfdivert77remote ifconfig epair2b inet 10.188.1.2/24",
		"jexec pfdivert77remote ifconfig epair2b inet6 fd00:188:1::2/64",
		"jexec pfdivert77remote sysctl net.inet.ip.maxfragsperpacket=64",
		"jexec pfdivert77remote sysctl net.inet6.ip6.fw.deny_unknown_exthdrs=0",
		"jexec pfdivert77remote ipfw -q add 65534 allow ip from any to any",
		"jexec pfdivert77remote sysctl net.fibs=2",
		"jexec pfdivert77remote pfctl -q -f -",
		"jexec pfdivert77remote pfctl -q -e",
		// A second cable.
		"ifconfig epair3 create description pfdivert lab",
		"ifconfig epair3a vnet pfdivert77local",
		"ifconfig epair3b vnet pfdivert77remote",
		"jexec pfdivert77local ifconfig epair3a inet6 -ifdisabled no_dad up",
		"jexec pfdivert77local ifconfig epair3a inet 10.188.3.1/24",
		"jexec pfdivert77local ifconfig epair3a inet6 fd00:188:3::1/64",
		"jexec pfdivert77remote ifconfig epair3b inet6 -ifdisabled no_dad up",
		"jexec pfdivert77remote ifconfig epair3b inet 10.188.3.2/24",
		"jexec pfdivert77remote ifconfig epair3b inet6 fd00:188:3::2/64",
		"jexec pfdivert77remote sysctl net.inet.ip.redirect=0 net.inet6.ip6.redirect=0 net.inet.ip.forwarding=1 net.inet6.ip6.forwarding=1",
		// A third host behind REMOTE.
		"jail -c name=pfdivert77mirror vnet persist path=/ host=inherit",
		"ifconfig epair4 create description pfdivert lab",
		"ifconfig epair4a vnet pfdivert77remote",
		"ifconfig epair4b vnet pfdivert77mirror",
		"jexec pfdivert77remote ifconfig epair4a inet6 -ifdisabled no_dad up",
		"jexec pfdivert77remote ifconfig epair4a inet 10.188.4.2/24",
		"jexec pfdivert77remote ifconfig epair4a inet6 fd00:188:4::2/64",
		"jexec pfdivert77mirror ifconfig epair4b inet6 -ifdisabled no_dad up",
		"jexec pfdivert77mirror ifconfig epair4b inet 10.188.4.1/24",
		"jexec pfdivert77mirror ifconfig epair4b inet6 fd00:188:4::1/64",
		"jexec pfdivert77mirror sysctl net.inet.ip.maxfragsperpacket=64",
		"jexec pfdivert77mirror sysctl net.inet6.ip6.fw.deny_unknown_exthdrs=0",
		"jexec pfdivert77mirror ipfw -q add 65534 allow ip from any to any",
		"jexec pfdivert77local route -n add -inet -net 10.188.4.0/24 10.188.1.2",
		"jexec pfdivert77mirror route -n add -inet -net 10.188.1.0/24 10.188.4.2",
		"jexec pfdivert77local route -n add -inet6 -net fd00:188:4::/64 fd00:188:1::2",
		"jexec pfdivert77mirror route -n add -inet6 -net fd00:188:1::/64 fd00:188:4::2",
		"jexec pfdivert77mirror pfctl -q -f -",
		"jexec pfdivert77mirror pfctl -q -e",
		"jexec pfdivert77mirror sysctl net.inet.ip.redirect=0 net.inet6.ip6.redirect=0 net.inet.ip.forwarding=1 net.inet6.ip6.forwarding=1",
		"jexec pfdivert77local route -n add -inet -net 10.208.0.0/12 10.188.1.2",
		"jexec pfdivert77local route -n add -inet6 -net fd00:188:2::/64 fd00:188:1::2",
	}
	if !slices.Equal(m.log, want) {
		t.Errorf("commands\n%s\nwant\n%s", strings.Join(m.log, "\n"), strings.Join(want, "\n"))
	}
	if got := b.lab.Remote; !slices.Equal(got.Enter, []string{"jexec", "pfdivert77remote"}) ||
		!slices.Equal(got.Args, []string{"-lab-host", "epair2b"}) {
		t.Errorf("REMOTE's agent: %+v", got)
	}
	if got := b.lab.Second; got.Gateways[pfconf.Inet].String() != "10.188.3.1" ||
		got.Gateways[pfconf.Inet6].String() != "fd00:188:3::1" {
		t.Errorf("REMOTE's second network: %+v", got)
	}
	if got := b.lab.Second.Mirrors; got[pfconf.Inet].String() != "10.188.4.1" ||
		got[pfconf.Inet6].String() != "fd00:188:4::1" {
		t.Errorf("the third host: %v", got)
	}
	m.log = nil
	if err := b.lab.Close(t.Context()); err != nil {
		t.Error(err)
	}
	// The interfaces come first: a jail with sockets in TIME_WAIT would keep them.
	want = []string{
		"ifconfig epair4a -vnet pfdivert77remote", "ifconfig epair4b -vnet pfdivert77mirror",
		"ifconfig epair4a destroy",
		"jail -r pfdivert77mirror",
		"ifconfig epair3a -vnet pfdivert77local", "ifconfig epair3b -vnet pfdivert77remote", "ifconfig epair3a destroy",
		"ifconfig epair2a -vnet pfdivert77local", "ifconfig epair2b -vnet pfdivert77remote", "ifconfig epair2a destroy",
		"ifconfig epair1a -vnet pfdivert77local", "ifconfig epair1b -vnet pfdivert77remote",
		"jail -r pfdivert77remote", "jail -r pfdivert77local",
	}
	if !slices.Equal(m.log, want) {
		t.Errorf("commands\n%s\nwant\n%s", strings.Join(m.log, "\n"), strings.Join(want, "\n"))
	}
	m.nics = slices.DeleteFunc(m.nics, func(n *fakeNIC) bool { return n.jail == "web" })
	if got := m.String(); got != before {
		t.Errorf("after the lab:\n%s\nbefore:\n%s", got, before)
	}
}

// A kernel without pf can still be a lab.
func TestJailsWithoutPF(t *testing.T) {
	m, r := newMachine(t), &recorder{}
	m.noPF = true
	l, err := Build(t.Context(), "freebsd", Layout{}, m.run, r.record)
	if err != nil {
		t.Error(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// layouts have all that labs of the systems can have.
var layouts = map[string]Layout{"freebsd": {PF: true, Router: true}, "openbsd": {Router: true}}

// TestKilled kills what builds a lab at each of its commands, before and after it did its work,
// and what undoes it as well. Undoing what the journal has leaves the host as it was.
func TestKilled(t *testing.T) {
	for _, system := range []string{"openbsd", "freebsd"} {
		whole := newMachine(t)
		if _, err := Build(t.Context(), system, layouts[system], whole.run, (&recorder{}).record); err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= len(whole.log); n++ {
			for _, after := range []bool{false, true} {
				for undone := range 12 { // how many commands the first try to undo does; 0: all
					m, r := newMachine(t), &recorder{}
					before := m.String()
					m.fail, m.after = n, after
					_, err := Build(t.Context(), system, layouts[system], m.run, r.record)
					if !errors.Is(err, errKilled) {
						t.Fatalf("%s: command %d is killed: %v", system, n, err)
					}
					if n := m.nic("pair3", ""); system == "openbsd" && n != nil && len(n.addresses) == 3 {
						m.traffic()
						if third := m.nic("pair7", ""); third != nil && len(third.addresses) == 3 {
							m.forwarded()
						}
					}
					m.log, m.fail = nil, undone
					undo(t, m, r.steps)
					m.fail = 0
					undo(t, m, r.steps)
					if got := m.String(); got != before {
						t.Fatalf("%s, killed at %q (done: %v), its undoing after %d commands: it is\n%s\nand was\n%s",
							system, whole.log[n-1], after, undone, got, before)
					}
				}
			}
		}
	}
}

// undo undoes steps as a journal is undone, and stops where it is killed.
func undo(t *testing.T, m *machine, steps []pfconf.Undo) {
	t.Helper()
	for _, u := range slices.Backward(steps) {
		if err := Undo(context.Background(), m.run, u); errors.Is(err, errKilled) {
			return
		} else if err != nil {
			t.Errorf("%s: %v", Describe(u), err)
		}
	}
}

// What has a lab's name but is not a lab's stays.
func TestUndoOthers(t *testing.T) {
	m := newMachine(t)
	m.jails = []string{"web"}
	before := m.String()
	for _, u := range []pfconf.Undo{
		{Do: undoInterface, Args: []string{"pair1", "4", "0"}},
		{Do: undoInterface, Args: []string{"pair9", "4", "0"}},
		{Do: undoEpair, Args: []string{"epair0", "pfdivert1local", "pfdivert1remote"}},
		{Do: undoJail, Args: []string{"pfdivert1local"}},
	} {
		if err := Undo(t.Context(), m.run, u); err != nil {
			t.Errorf("%+v: %v", u, err)
		}
		if Describe(u) == "" {
			t.Errorf("%+v is not described", u)
		}
	}
	if got := m.String(); got != before {
		t.Errorf("it is\n%s\nand was\n%s", got, before)
	}
	for _, u := range []pfconf.Undo{{Do: "lab/other"}, {Do: undoInterface, Args: []string{"pair1"}}, {Do: undoJail}} {
		if err := Undo(t.Context(), m.run, u); err == nil || Describe(u) != "" {
			t.Errorf("%+v: %v, %q", u, err, Describe(u))
		}
	}
}

// A step that can't be undone stays for another try, and does not keep the rest from it.
func TestCloseAgain(t *testing.T) {
	m := newMachine(t)
	before := m.String()
	l, err := Build(t.Context(), "openbsd", Layout{}, m.run, (&recorder{}).record)
	if err != nil {
		t.Fatal(err)
	}
	m.log, m.fail = nil, 1
	if err := l.Close(t.Context()); !errors.Is(err, errKilled) {
		t.Errorf("the first command fails: %v", err)
	}
	if got := len(l.steps); got != 1 {
		t.Errorf("%d steps are left, want 1", got)
	}
	m.fail = 0
	if err := l.Close(t.Context()); err != nil || m.String() != before {
		t.Errorf("again: %v, it is\n%s\nand was\n%s", err, m, before)
	}
}

// A journal that can't be written keeps the change from being made.
func TestJournalFails(t *testing.T) {
	full := errors.New("no space left on device")
	for _, system := range []string{"openbsd", "freebsd"} {
		m := newMachine(t)
		if _, err := Build(t.Context(), system, layouts[system], m.run,
			func(pfconf.Undo) error { return full }); !errors.Is(err, full) {
			t.Errorf("%s: %v", system, err)
		}
		if len(m.log) > 0 {
			t.Errorf("%s: without a journal: %q", system, m.log)
		}
	}
}
