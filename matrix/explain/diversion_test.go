package explain

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pfdivert/matrix/evidence"
	"pfdivert/pfconf"
)

// TestDiverted: what is wrong with a rule of someone else's and the sockets that it leads to.
func TestDiverted(t *testing.T) {
	type all = []evidence.Listener
	tproxy := evidence.Diversion{Kind: evidence.TProxy, Proto: "tcp", Port: 3128, Mark: 1, Interfaces: []string{"eth0"}}
	to := func(d evidence.Diversion, address string) evidence.Diversion {
		d.Address = netip.MustParseAddr(address)
		return d
	}
	listens := func(at string, transparent, known bool) evidence.Listener {
		return evidence.Listener{Proto: "tcp", At: netip.MustParseAddrPort(at), Transparent: transparent, Known: known}
	}
	queue := evidence.Diversion{Kind: evidence.Queue, Queue: 5, Last: 8}
	bypass := queue
	bypass.Bypass = true
	unmarked, udp := tproxy, tproxy
	unmarked.Mark, udp.Proto = 0, "udp"
	many := evidence.Diversion{Kind: evidence.Redirect, Proto: "udp", Port: 53, Ports: true}
	over := func(does evidence.Deed, before, all bool) evidence.Diversion {
		d := tproxy
		d.Overruled = []evidence.Overruling{{Family: pfconf.Inet, Rule: "rule 7", Does: does, Before: before,
			All: all}, {Family: pfconf.Inet6, Does: does, All: true}}
		return d
	}
	right := all{listens("0.0.0.0:3128", true, true)}
	ofSocket, unknown := evidence.Diversion{Kind: evidence.OfSocket,
		Rule: "iptables-legacy table mangle chain PREROUTING rule 1"}, unmarked
	unknown.MarkUnknown = true
	redirect := evidence.Diversion{Kind: evidence.Redirect, Proto: "tcp", Port: 3128}
	heard := func(text string, numbers ...string) (some []evidence.SocketEntry) {
		for _, n := range numbers {
			some = append(some, evidence.SocketEntry{Proto: "divert", Local: netip.MustParseAddrPort("0.0.0.0:" + n),
				Text: text})
		}
		return some
	}
	const fine = "dropped 0 by the full queue and 0 by the full socket"
	for _, c := range []struct {
		name    string
		rule    evidence.Diversion
		family  pfconf.Family
		listens all
		queues  []evidence.SocketEntry
		want    string
	}{
		{"right", tproxy, pfconf.Inet, all{listens("0.0.0.0:3128", true, true)}, nil, ""},
		{"right, of both families", tproxy, pfconf.Inet, all{listens("[::]:3128", true, true)}, nil, ""},
		{"right, IPv6", tproxy, pfconf.Inet6, all{listens("[::]:3128", true, true)}, nil, ""},
		{"right, to an address", to(tproxy, "127.0.0.1"), pfconf.Inet, all{listens("127.0.0.1:3128", true, true)}, nil,
			""},
		{"an old kernel does not tell", tproxy, pfconf.Inet, all{listens("0.0.0.0:3128", false, false)}, nil, ""},
		{"sockets are not known", tproxy, pfconf.Inet, nil, nil, ""},
		{"not transparent", tproxy, pfconf.Inet, all{listens("0.0.0.0:3128", false, true)}, nil, "not-transparent"},
		{"one of two is transparent", tproxy, pfconf.Inet, all{listens("0.0.0.0:3128", false, true),
			listens("10.0.0.1:3128", true, true)}, nil, ""},
		{"nobody", tproxy, pfconf.Inet, all{}, nil, "no-listener"},
		{"the other family", tproxy, pfconf.Inet6, all{listens("0.0.0.0:3128", true, true)}, nil, "no-listener"},
		{"another protocol", udp, pfconf.Inet, all{listens("0.0.0.0:3128", true, true)}, nil, "no-listener"},
		{"another port", tproxy, pfconf.Inet, all{listens("0.0.0.0:3129", true, true)}, nil, "listener-elsewhere"},
		{"another program", tproxy, pfconf.Inet, all{listens("0.0.0.0:22", false, true)}, nil, "no-listener"},
		{"another address", to(tproxy, "127.0.0.1"), pfconf.Inet, all{listens("10.0.0.1:3128", true, true)}, nil,
			"listener-elsewhere"},
		{"loopback", tproxy, pfconf.Inet, all{listens("127.0.0.1:3128", true, true)}, nil, "listener-elsewhere"},
		{"not marked", unmarked, pfconf.Inet, all{listens("0.0.0.0:3128", true, true)}, nil, "mark-not-set"},
		{"not marked as far as is known", unknown, pfconf.Inet, right, nil, ""},
		{"redirect", redirect, pfconf.Inet, all{listens("0.0.0.0:3128", false, true)}, nil, ""},
		{"redirect of UDP to many ports", many, pfconf.Inet, nil, nil, "destination-translated"},
		{"dropped before", over(evidence.Drops, true, true), pfconf.Inet, right, nil, "dropped-before"},
		{"dropped after", over(evidence.Drops, false, true), pfconf.Inet, right, nil, "dropped-after"},
		{"passed before", over(evidence.Passes, true, true), pfconf.Inet, right, nil, "overruled"},
		{"cleared", over(evidence.Clears, false, true), pfconf.Inet, right, nil, "mark-cleared"},
		{"translated", over(evidence.Translates, false, false), pfconf.Inet, right, nil, "destination-translated"},
		{"not tracked", over(evidence.Untracks, true, true), pfconf.Inet, right, nil, "not-tracked"},
		{"looped", over(evidence.Loops, false, true), pfconf.Inet, right, nil, "own-traffic-diverted"},
		{"answers dropped", over(evidence.DropsAnswer, false, true), pfconf.Inet, right, nil, "dropped-out"},
		{"no interface", over(evidence.LacksNIC, false, true), pfconf.Inet, right, nil, "not-evaluated"},
		{"sockets that are not marked", ofSocket, pfconf.Inet, nil, nil, "mark-not-set"},
		{"queue", queue, pfconf.Inet, nil, heard(fine, "5", "6", "7", "8"), ""},
		{"unheard", queue, pfconf.Inet, nil, heard(fine, "9"), "queue-unheard"},
		{"one of four unheard", queue, pfconf.Inet, nil, heard(fine, "5", "6", "8"), "queue-unheard"},
		{"bypassed", bypass, pfconf.Inet, nil, nil, "queue-bypassed"},
		{"full", queue, pfconf.Inet, nil, heard("dropped 3 by the full queue and 0 by the full socket", "5", "6", "7",
			"8"), "queue-full"},
	} {
		var codes []string
		for _, p := range Diverted(c.rule, c.family, HostFacts{Record: evidence.Record{Sockets: c.queues},
			Remote: true},
			c.listens, nftables) {
			codes = append(codes, p.Cause)
			if p.Likely == "" || p.Check == "" || p.Mend == "" || strings.Contains(p.Likely, "{") {
				t.Errorf("%s: %+v", c.name, p)
			}
			if d := c.rule; len(d.Overruled) > 0 && !strings.Contains(p.Likely, d.Overruled[0].Rule) {
				t.Errorf("%s: %q does not name the rule", c.name, p.Likely)
			}
			if strings.HasPrefix(c.rule.Rule, "iptables-legacy") != strings.Contains(p.Check, "iptables-legacy-save") {
				t.Errorf("%s: check %q", c.name, p.Check)
			}
		}
		var want []string
		if c.want != "" {
			want = []string{c.want}
		}
		if !slices.Equal(codes, want) {
			t.Errorf("%s: %q, want %q", c.name, codes, want)
		}
	}
}

// TestDivertedBSD: the same of pf's rules and ipfw's.
func TestDivertedBSD(t *testing.T) {
	to := evidence.Diversion{Kind: evidence.DivertTo, Proto: "tcp", Address: netip.MustParseAddr("127.0.0.1"),
		Port: 3128}
	rdr, raw, lost, divert, reply := to, to, to, evidence.Diversion{Kind: evidence.Divert, Queue: 700, Last: 700},
		evidence.Diversion{Kind: evidence.DivertReply}
	rdr.Kind, raw.Proto, lost.Unreached = evidence.RdrTo, "254", "no rule calls it"
	tee := divert
	tee.Bypass = true
	over := func(drops, before, all bool) evidence.Diversion {
		d := to
		does := map[bool]evidence.Deed{true: evidence.Drops, false: evidence.Passes}[drops]
		d.Overruled = []evidence.Overruling{{Family: pfconf.Inet, Rule: "rule 7", Does: does, Before: before,
			All: all}, {Family: pfconf.Inet6, Does: does, All: true}}
		return d
	}
	doing := func(d evidence.Diversion, does evidence.Deed, all bool) evidence.Diversion {
		d.Overruled = []evidence.Overruling{{Family: pfconf.Inet, Rule: "it", Does: does, All: all}}
		return d
	}
	listens := func(at string) []evidence.Listener {
		return []evidence.Listener{{Proto: "tcp", At: netip.MustParseAddrPort(at), Only6: true}}
	}
	right := listens("127.0.0.1:3128")
	heard := func(at, text string) []evidence.SocketEntry {
		return []evidence.SocketEntry{{Proto: "divert", Local: netip.MustParseAddrPort(at), Text: text}}
	}
	for _, c := range []struct {
		name    string
		rule    evidence.Diversion
		family  pfconf.Family
		listens []evidence.Listener
		queues  []evidence.SocketEntry
		want    string
		maybe   bool
	}{
		{"right", to, pfconf.Inet, right, nil, "", false},
		{"any address, for divert-to", to, pfconf.Inet, listens("0.0.0.0:3128"), nil, "listener-elsewhere", false},
		{"any address, for rdr-to", rdr, pfconf.Inet, listens("0.0.0.0:3128"), nil, "", false},
		{"pf on beside ipfw", doing(divert, evidence.PFLoops, true), pfconf.Inet, nil,
			heard("0.0.0.0:700", "divert4 0 0 *.700 *.*"), "pf-spoils-divert", false},
		{"lost by being diverted", doing(divert, evidence.PFLoses, true), pfconf.Inet, nil,
			heard("0.0.0.0:700", "divert4 0 0 *.700 *.*"), "lost-by-divert", false},
		{"user", doing(to, evidence.Unowned, true), pfconf.Inet, right, nil, "not-evaluated", true},
		{"FreeBSD 15's takes both", divert, pfconf.Inet6, nil, heard("0.0.0.0:700", "divert4 0 0 *.700 *.*"), "",
			false},
		{"FreeBSD 15's without a port", divert, pfconf.Inet, nil, heard("0.0.0.0:0", "divert4 0 0 *.* *.*"),
			"queue-unheard", false},
		{"nobody", to, pfconf.Inet, listens("127.0.0.1:3129"), nil, "no-listener", false},
		{"the other family", to, pfconf.Inet, listens("[::]:3128"), nil, "no-listener", false},
		{"another address", to, pfconf.Inet, listens("10.0.0.1:3128"), nil, "listener-elsewhere", false},
		{"a raw socket", raw, pfconf.Inet, right, nil, "", false},
		{"rdr-to", rdr, pfconf.Inet, right, nil, "", false},
		{"divert-reply", reply, pfconf.Inet, listens("0.0.0.0:22"), nil, "", false},
		{"not called", lost, pfconf.Inet, right, nil, "not-evaluated", false},
		{"dropped before", over(true, true, true), pfconf.Inet, right, nil, "dropped-before", false},
		{"some dropped before", over(true, true, false), pfconf.Inet, right, nil, "dropped-before", true},
		{"dropped by a later rule", over(true, false, true), pfconf.Inet, right, nil, "overruled", false},
		{"passed before", over(false, true, false), pfconf.Inet, right, nil, "overruled", true},
		{"divert", divert, pfconf.Inet, nil, heard("0.0.0.0:700", "div4 0 0 *.700 *.*"), "", false},
		{"FreeBSD's takes both", divert, pfconf.Inet6, nil, heard("0.0.0.0:700", "div4 0 0 *.700 *.*"), "", false},
		{"another port", divert, pfconf.Inet, nil, heard("0.0.0.0:701", "div4 0 0 *.701 *.*"), "queue-unheard", false},
		{"a port that is not shown", divert, pfconf.Inet, nil, heard("0.0.0.0:0", "divert: internet raw divert 0x1"),
			"", false},
		{"OpenBSD's takes one", divert, pfconf.Inet6, nil, heard("0.0.0.0:0", "divert: internet raw divert 0x1"),
			"queue-unheard", false},
		{"tee", tee, pfconf.Inet, nil, nil, "queue-bypassed", false},
	} {
		for _, firewall := range []string{pf, ipfw} {
			all := Diverted(c.rule, c.family, HostFacts{Record: evidence.Record{Sockets: c.queues}, Remote: true},
				c.listens,
				firewall)
			switch {
			case c.want == "" && len(all) == 0:
			case len(all) != 1 || all[0].Cause != c.want || all[0].Maybe != c.maybe || all[0].Likely == "" ||
				all[0].Check == "" || all[0].Mend == "":
				t.Errorf("%s, %s: %+v, want %q", c.name, firewall, all, c.want)
			}
		}
	}
}
