package agent

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
)

// pf's settings are said to be right, or what fixes them.
func TestCheckPF(t *testing.T) {
	s := &script.Setup{Remote: true,
		Paths: []script.Path{{Here: netip.MustParseAddr("10.188.1.2"), There: netip.MustParseAddr("10.188.1.1")},
			{Here: netip.MustParseAddr("fd00:188:1::2"), There: netip.MustParseAddr("fd00:188:1::1")}},
		Fakes: []netip.Prefix{netip.MustParsePrefix("10.188.2.9/32"), netip.MustParsePrefix("fd00:188:2::9/128")},
	}
	for _, c := range []struct {
		name     string
		rules    string // the main ruleset
		old, new string // what differs in the other transcripts
		item     string // that is wrong
		detail   string
		cure     string
	}{
		{"as it must be", "", "", "", "", "", ""},
		{"switched off", "", "Enabled", "Disabled", "pf", "switched off", "pfctl -e"},
		{"no answer", "", "Status", "Stand", "pf", "not understood", ""},
		{"skipped", "", "vio0", "vio0 (skip)", "pf sees the interfaces", "set skip", "pfctl -f /etc/pf.conf"},
		{"no anchor", "pass all flags S/SA\n", "", "", anchorItem, "comes to it", `anchor "regress"`},
		{"another anchor", "pass all flags S/SA\nanchor \"regression\" all\n", "", "", anchorItem, "comes to it",
			`anchor "regress"`},
		{"only its children", "anchor \"regress/*\" all\n", "", "", anchorItem, "leaves out", `anchor "regress"`},
		{"one family", "anchor \"regress\" inet all\n", "", "", anchorItem, "(inet6 tcp divert-to)",
			`anchor "regress"`},
		{"quick before it", "block drop in quick inet6 proto udp all\nanchor \"regress\" all\n", "", "", anchorItem,
			"block drop in quick inet6 proto udp all", "quick"},
		{"quick about others", "pass in quick proto tcp from any to any port = 22 flags S/SA\nanchor \"regress\" all\n", "", "", "", "", ""},
		{"behind it", "anchor \"regress\" all\npass all flags S/SA\n", "", "", anchorItem, "decides before it", "last"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := replay(t, "pf", func(command string, r *program.Output) {
				if command == "pfctl -s rules" && c.rules != "" {
					r.Stdout = c.rules
				}
				r.Stdout = strings.Replace(r.Stdout, c.old, c.new, 1)
			})
			var found checks
			found.pf(context.Background(), pf.NewControl(run, 0), s, []string{"vio0"})
			var wrong []CheckItem
			for _, i := range found {
				if !i.OK {
					wrong = append(wrong, i)
				}
			}
			switch {
			case c.item == "" && len(wrong) == 0 && len(found) == 3:
			case c.item == "" || len(wrong) != 1:
				t.Errorf("%+v", found)
			case wrong[0].Name != c.item || !strings.Contains(wrong[0].Detail, c.detail) ||
				!strings.Contains(wrong[0].Cure, c.cure):
				t.Errorf("%+v", wrong[0])
			}
		})
	}
}

// A rule about the reverse path is told of once, with what it does to a run and to faults, and what
// to look at. It is no more than a warning: it spares a run's packets where routes are right.
func TestCheckPathBack(t *testing.T) {
	s := &script.Setup{Remote: true,
		Paths: []script.Path{{Here: netip.MustParseAddr("10.188.1.2"), There: netip.MustParseAddr("10.188.1.1")}},
		Fakes: []netip.Prefix{netip.MustParsePrefix("10.188.2.9/32")},
	}
	const rule = "block drop in quick from urpf-failed to any"
	run := replay(t, "pf", func(command string, r *program.Output) {
		if command == "pfctl -s rules" {
			r.Stdout = rule + "\nanchor \"regress\" all\n"
		}
	})
	var found checks
	found.pf(t.Context(), pf.NewControl(run, 0), s, []string{"vio0"})
	var warned []CheckItem
	for _, i := range found {
		if !i.OK || i.Warn {
			warned = append(warned, i)
		}
	}
	if len(warned) != 1 || !warned[0].OK || warned[0].Name != "path back" {
		t.Fatalf("%+v", warned)
	}
	for _, want := range []string{rule, "not-delivered", "fake-unrouted", "10.188.1.1"} {
		if !strings.Contains(warned[0].Detail, want) {
			t.Errorf("%q is not in: %s", want, warned[0].Detail)
		}
	}
	if !strings.Contains(warned[0].Cure, "route -n get 10.188.1.1") {
		t.Errorf("fix: %s", warned[0].Cure)
	}
}

// What is looked at on a FreeBSD host: each thing that is not as it must be is told of with what
// fixes it.
func TestCheckIPFW(t *testing.T) {
	s := &script.Setup{}
	for _, p := range [][2]string{{"10.189.11.2", "10.189.11.1"}, {"fd00:189:11::2", "fd00:189:11::1"}} {
		s.Paths = append(s.Paths, script.Path{Here: netip.MustParseAddr(p[0]), There: netip.MustParseAddr(p[1])})
	}
	for _, c := range []struct {
		name               string
		command            string // whose answer differs
		stdout, stderr     string
		item, detail, cure string // of what is wrong
	}{
		{"as it must be", "", "", "", "", "", ""},
		{"not loaded", "ipfw -S show", "", "ipfw: retrieving config failed: Protocol not available\n", "ipfw",
			"Protocol not available", "default_to_accept=1 && kldload ipfw"},
		{"denies all", "ipfw -S show", "65535 207 12172 set 31 deny ip from any to any\n", "", "ipfw", "denies all",
			"ipfw add 65000 allow"},
		{"off", "sysctl -n net.inet.ip.fw.enable", "0\n", "", "ipfw", "switched off for inet",
			"sysctl net.inet.ip.fw.enable=1"},
		{"no number left", "ipfw -S show",
			"00001 1 2 set 0 allow ip from any to any\n65535 2 1 set 31 deny ip from any to any\n", "", "ipfw",
			"none left before it", "ipfw delete 1"},
		{"no answer", "ipfw set show", "", "", "ipfw", "not understood", ""},
		{"denies protocol 254", "sysctl -n net.inet6.ip6.fw.deny_unknown_exthdrs", "1\n", "",
			"ipfw passes IPv6 of any protocol", "protocol 254", "sysctl net.inet6.ip6.fw.deny_unknown_exthdrs=0"},
		{"LOCAL without ipfw", "sysctl -n net.inet6.ip6.fw.deny_unknown_exthdrs", "",
			"sysctl: unknown oid 'net.inet6.ip6.fw.deny_unknown_exthdrs'\n", "", "", ""},
		{"no answer of LOCAL's", "sysctl -n net.inet6.ip6.fw.deny_unknown_exthdrs", "", "sysctl: no\n",
			"ipfw passes IPv6 of any protocol", "sysctl: no", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			control := ipfw.NewControl(replay(t, "ipfw", func(command string, r *program.Output) {
				if command == c.command {
					*r = program.Output{Stdout: c.stdout, Stderr: c.stderr}
				}
			}))
			var found checks
			found.ipfw(t.Context(), control, s)
			found.unknownProtocols(t.Context(), control, s)
			var wrong []CheckItem
			for _, i := range found {
				if !i.OK {
					wrong = append(wrong, i)
				}
			}
			switch {
			case len(found) != 2:
				t.Errorf("%+v", found)
			case c.item == "" && len(wrong) == 0:
			case c.item == "" || len(wrong) != 1:
				t.Errorf("%+v", found)
			case wrong[0].Name != c.item || !strings.Contains(wrong[0].Detail, c.detail) ||
				!strings.Contains(wrong[0].Cure, c.cure):
				t.Errorf("%+v", wrong[0])
			}
		})
	}
}

// TestPFBeside: pf on beside ipfw is a warning from FreeBSD 14 on.
func TestPFBeside(t *testing.T) {
	for _, c := range []struct{ kernel, out, stderr, want string }{
		{"FreeBSD 15.1-RELEASE-p1", "Status: Enabled for 0 days 00:03:30           Debug: Urgent\n  current entries   0\n", "", "warn"},
		{"FreeBSD 15.1-RELEASE-p1", "Status: Disabled for 0 days 00:03:30          Debug: Urgent\n  current entries   0\n", "", "ok"},
		{"FreeBSD 15.1-RELEASE-p1", "", "pfctl: /dev/pf: No such file or directory\n", ""},
		{"FreeBSD 15.1-RELEASE-p1", "", "pfctl: /dev/pf: Permission denied\n", "failed"},
		{"FreeBSD 13.2-RELEASE", "Status: Enabled for 0 days 00:03:30           Debug: Urgent\n  current entries   0\n", "", ""},
	} {
		var found checks
		found.pfBeside(t.Context(), pf.NewControl(func(context.Context, program.Command) (program.Output, error) {
			return program.Output{Stdout: c.out, Stderr: c.stderr, Status: len(c.stderr)}, nil
		}, 0), c.kernel)
		got := ""
		for _, i := range found {
			switch {
			case i.Warn:
				got += "warn"
			case i.OK:
				got += "ok"
			case i.Failed:
				got += "failed"
			}
		}
		if got != c.want {
			t.Errorf("%s, %s%s: %+v", c.kernel, c.out, c.stderr, found)
		}
	}
}
