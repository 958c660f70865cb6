package nft

import (
	"net/netip"
	"slices"

	"pfdivert/pfconf"
	"pfdivert/pfconf/xt"
)

// The rules of x_tables stand in tables and at hooks as iptables has them, because extensions want
// that (TPROXY is for the table mangle), in chains of this program's own to which the hooks' jump.
// A rule of x_tables does one thing, so what is one rule in nf_tables is several here. What they do
// not drop is counted behind them, by rules of nf_tables in the table own: x_tables has no place
// there (TPROXY and NFQUEUE end a packet's way through all chains of the table).

// xtPrefix begins the names of this program's chains in iptables' tables.
const xtPrefix = TableName + "-"

// hooked is a chain of a hook in iptables' table, and in this program's that it jumps to.
type hooked struct {
	hook chain
	own  string
}

// mangled are the chains of the table mangle.
func mangled(f pfconf.Family) []hooked {
	t := table{tableFamily(f), "mangle"}
	return []hooked{
		{chain{t, "PREROUTING", "prerouting", 0, manglePriority}, xtPrefix + "pre"},
		{chain{t, "INPUT", "input", 1, manglePriority}, xtPrefix + "in"},
		{chain{t, "OUTPUT", "output", 3, manglePriority}, xtPrefix + "out"},
	}
}

// natted are the chains of the table nat: for destinations, and for sources.
func natted(f pfconf.Family) []hooked {
	t := table{tableFamily(f), "nat"}
	return []hooked{
		{chain{t, "PREROUTING", "prerouting", 0, dstnatPriority}, xtPrefix + "rdr"},
		{chain{t, "POSTROUTING", "postrouting", 4, srcnatPriority}, xtPrefix + "snat"},
	}
}

func tableFamily(f pfconf.Family) uint8 {
	if f == pfconf.Inet {
		return familyIPv4
	}
	return familyIPv6
}

// of is the family of an iptables' table.
func (t table) of() pfconf.Family {
	if t.family == familyIPv4 {
		return pfconf.Inet
	}
	return pfconf.Inet6
}

// xtRules gathers the rules of x_tables for one of pfconf's.
type xtRules struct {
	label string
	rules []kernelRule
}

// add adds a rule in this program's chain below a hook.
func (x *xtRules) add(h hooked, p part, r xt.Rule) {
	at := chain{table: h.hook.table, name: h.own}
	x.rules = append(x.rules, kernelRule{chain: at, label: x.label, part: p, xt: &r})
}

// then is the rule with another target.
func then(r xt.Rule, target xt.Extension) xt.Rule {
	r.Target = target
	return r
}

// compileXT returns the kernel's rules for r, which is valid.
func (c Config) compileXT(r pfconf.Rule) []kernelRule {
	x := &xtRules{label: r.Label}
	chains := mangled(r.Family)
	pre, in, out := chains[0], chains[1], chains[2]
	done := func(at chain, s []statement) {
		s = append(s, counter{})
		x.rules = append(x.rules, kernelRule{chain: at, label: r.Label, part: partDone, statements: s})
	}
	there := xt.Rule{From: r.From, To: r.To, Proto: r.Proto.Number(r.Family)}
	back := there
	back.From, back.To = r.To, r.From
	if r.Proto.HasPorts() {
		there.Matches = []xt.Extension{xt.Ports(r.Proto, 0, r.Port)}
		back.Matches = []xt.Extension{xt.Ports(r.Proto, r.Port, 0)}
	}
	came := c.Interface
	if c.omits(Towards) {
		came = "elsewhere0"
	}
	ctMarked := xt.ConnMarked(Mark)
	switch r.Action {
	case pfconf.DivertTo:
		there.In = came
		if r.DivertsOutput() {
			sent := there
			sent.In, there.In = "", "lo"
			sent.Matches = append(slices.Clone(there.Matches), xt.NotMarked(pfconf.ProxyMark))
			if !c.omits(OutputMark) {
				x.add(out, partOther, then(sent, c.xtMark(r.Family)))
			}
		}
		if r.Established && !c.omits(SocketMatch) {
			own := there
			own.Matches = append(slices.Clone(there.Matches), xt.TransparentSocket())
			x.add(pre, partReply, then(own, c.xtMark(r.Family)))
			own.Verdict = xt.Return
			x.add(pre, partEnd, own)
		}
		x.add(pre, partMain, then(there, xt.SetConnMark(Mark)))
		c.xtDivert(x, pre, there, r)
		in := c.came()
		if r.DivertsOutput() {
			in = []statement{onInterface{"lo"}}
		}
		done(preDone, append(in, match(r)...))
		if r.Family == pfconf.Inet6 && r.Proto == pfconf.ICMP && !c.omits(KernelEcho) {
			back.Matches, back.Verdict = []xt.Extension{xt.EchoReply6()}, xt.Drop
			x.add(out, partKernel, back)
		}
	case pfconf.DivertReply:
		first := there
		if !c.omits(CTMark) {
			first.Target = xt.SetConnMark(Mark)
		}
		x.add(out, partMain, first)
		known := ctMarked
		if r.Translated.IsValid() {
			x.add(natted(r.Family)[1], partOther, then(there, xt.SNAT(r.Translated)))
			back.To, known = r.Translated, xt.TransparentSocket()
		}
		there.Matches = append(slices.Clone(there.Matches), ctMarked)
		x.add(out, partDone, there)
		if c.omits(Back) {
			break
		}
		back.In = came
		if c.omits(AnyDirection) {
			back.Matches = append(back.Matches, xt.Replying())
		}
		back.Matches = append(back.Matches, known)
		if c.omits(PacketMark) {
			x.add(pre, partReply, back)
		} else {
			x.add(pre, partReply, then(back, c.xtMark(r.Family)))
		}
		back.Verdict = xt.Return
		x.add(pre, partEnd, back)
	case pfconf.RdrTo:
		there.In = came
		at := natted(r.Family)[0]
		x.add(at, partBoth, then(there, xt.SetConnMark(Mark)))
		target := xt.DNAT(r.Divert)
		if r.Redirects() {
			target = xt.Redirect(r.Family, r.Divert.Port())
		}
		x.add(at, partAction, then(there, target))
	case pfconf.DivertPacket:
		queue := xt.NFQueue(r.Divert.Port(), r.Bypass)
		at, other, after, s := out, in, outDone, match(r)
		if r.Direction == pfconf.In {
			at, other, after, s, there.In = in, out, inDone, append(c.came(), s...), came
		} else {
			back.In = came
		}
		x.add(at, partMain, then(there, queue))
		done(after, s)
		if r.Both {
			x.add(other, partReply, then(back, queue))
		}
	}
	return x.rules
}

// xtTProxy is the target that hands packets to a transparent socket.
func (c Config) xtTProxy(to netip.AddrPort, mark uint32) xt.Extension {
	target := xt.TProxy(to, mark)
	if c.omits(TProxyModule) {
		target.Name = "NO-TPROXY"
	}
	return target
}

// xtMark is the target that marks packets of a family.
func (c Config) xtMark(f pfconf.Family) xt.Extension {
	target := xt.SetMark(Mark)
	if f == pfconf.Inet6 && c.omits(Mark6) {
		target.Name = "NO-MARK"
	}
	return target
}

// xtDivert adds what diverts the packets that there matches to a socket.
func (c Config) xtDivert(x *xtRules, pre hooked, there xt.Rule, r pfconf.Rule) {
	mark := Mark
	if c.omits(PacketMark) {
		mark = 0
	}
	if r.Proto.HasPorts() && !c.omits(TProxy) {
		x.add(pre, partAction, then(there, c.xtTProxy(r.Divert, mark)))
		return
	}
	if mark != 0 {
		x.add(pre, partAction, then(there, c.xtMark(r.Family)))
	}
	there.Verdict = xt.Return
	x.add(pre, partEnd, there)
}
