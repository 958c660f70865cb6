package twin

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// traceTable is the table that marks packets for a trace. It has two chains at each hook, before
// and behind all others: "prerouting first", "prerouting last".
const traceTable = "pfdivert trace"

var hookNames = []string{"prerouting", "input", "forward", "output", "postrouting"}

// traced returns the configuration with a table that has its packets traced.
func (c *Snapshot) traced() (*Snapshot, error) {
	d := c.Dump
	d.NFT = append(traceMessages(nil), d.NFT...)
	return redecode(&d)
}

// traceMessages make the table. It traces what matches one of some expressions, without any all
// packets.
func traceMessages(matches []attrs) []NetlinkMessage {
	message := func(kind int, all attrs) NetlinkMessage {
		return NetlinkMessage{uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			all.append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0})}
	}
	made := []NetlinkMessage{message(unix.NFT_MSG_NEWTABLE, attrs{{unix.NFTA_TABLE_NAME, zero(traceTable)},
		{unix.NFTA_TABLE_FLAGS, be32(0)}})}
	for hook, name := range hookNames {
		for _, place := range []struct {
			name     string
			priority int32
		}{{" first", math.MinInt32 + 1}, {" last", math.MaxInt32 - 1}} {
			made = append(made, message(unix.NFT_MSG_NEWCHAIN, attrs{
				{unix.NFTA_CHAIN_TABLE, zero(traceTable)}, {unix.NFTA_CHAIN_NAME, zero(name + place.name)},
				{unix.NFTA_CHAIN_HOOK | nestedFlag, attrs{{unix.NFTA_HOOK_HOOKNUM, be32(uint32(hook))},
					{unix.NFTA_HOOK_PRIORITY, be32(uint32(place.priority))}}.bytes()},
				{unix.NFTA_CHAIN_POLICY, be32(1)}, {unix.NFTA_CHAIN_TYPE, zero("filter")},
			}))
		}
	}
	// Each chain has a rule, because events of policies come without the packet's headers.
	trace := setMeta(unix.NFT_META_NFTRACE, []byte{1})
	for _, hook := range hookNames {
		for _, place := range []string{" first", " last"} {
			begins := place == " first" && (hook == "prerouting" || hook == "output")
			switch {
			case len(matches) == 0:
				made = append(made, ruleMessage("inet", traceTable, hook+place, trace))
			case begins:
				for _, m := range matches {
					made = append(made, ruleMessage("inet", traceTable, hook+place, slices.Concat(m, trace)))
				}
			default: // of what is traced already
				made = append(made, ruleMessage("inet", traceTable, hook+place, attrs{verdictExpr(1, "")}))
			}
		}
	}
	return made
}

// redecode makes a configuration of a dump that was changed.
func redecode(d *Dump) (*Snapshot, error) {
	c, err := decode(d)
	if err != nil {
		return nil, err
	}
	c.Dump = *d
	return c, nil
}

// traceEvent is what the kernel said of a packet at one rule or at the end of a chain.
type traceEvent struct {
	hop    Hop
	id     uint32
	flags  string // of TCP
	serial uint32 // TCP's sequence number, of UDP the length
	proto  string
	from   netip.AddrPort
	to     netip.AddrPort
	known  bool // the addresses are
}

// Trace runs flows in a twin of their own that traces packets, all at once, and returns each one's
// result and path. What a flow's packets do to each other's (limits, sets that are filled) is in
// it.
func Trace(ctx context.Context, c *Snapshot, flows []Flow) (results []FlowResult, paths []FlowPath, err error) {
	type traced struct {
		result FlowResult
		path   FlowPath
	}
	all, err := perOwner(c, flows, func(as *Snapshot, some []Flow) ([]traced, error) {
		results, paths, err := c.traceAs(ctx, as, some)
		if err != nil {
			return nil, err
		}
		both := make([]traced, len(some))
		for i := range some {
			both[i] = traced{results[i], paths[i]}
		}
		return both, nil
	})
	for _, t := range all {
		results, paths = append(results, t.result), append(paths, t.path)
	}
	return results, paths, err
}

// traceAs is Trace with rules as one owner's sockets find them. The texts are those of the host's
// rules.
func (c *Snapshot) traceAs(ctx context.Context, as *Snapshot, flows []Flow) ([]FlowResult, []FlowPath, error) {
	traced, err := as.traced()
	if err != nil {
		return nil, nil, err
	}
	t, err := Build(ctx, traced)
	if err != nil {
		return nil, nil, err
	}
	defer t.Close()
	tr := &tracer{config: c, writer: newWriter(c), ids: map[uint32]traceEvent{}}
	if err := tr.learn(ctx, t); err != nil {
		return nil, nil, err
	}
	before, err := t.counters()
	if err != nil {
		return nil, nil, err
	}
	stop, err := tr.listen(t)
	if err != nil {
		return nil, nil, err
	}
	results, err := t.Play(ctx, flows)
	if e := stop(); err == nil {
		err = e
	}
	if err != nil {
		return nil, nil, err
	}
	after, err := t.counters()
	if err != nil {
		return nil, nil, err
	}
	maps.DeleteFunc(after, func(name string, n int64) bool { return n == before[name] })
	for name := range after {
		after[name] -= before[name]
	}
	paths := make([]FlowPath, len(flows))
	packets := tr.packets()
	routes, err := t.Inside.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, err
	}
	defer routes.Close()
	if err := t.Config.askRoutes(routes, packets); err != nil {
		return nil, nil, err
	}
	for i, r := range results {
		paths[i] = FlowPath{Flow: r.Flow.ID, Counters: after}
		for _, p := range packets {
			switch {
			case p.Proto != r.Flow.Proto || !r.Source.IsValid():
			case p.From == r.Source:
				paths[i].Packets = append(paths[i].Packets, p)
			case p.To == r.Source:
				p.Answer = true
				paths[i].Packets = append(paths[i].Packets, p)
			}
		}
	}
	return results, paths, nil
}

// counters are the counters of the kernel's protocols in the twin.
func (t *Twin) counters() (all map[string]int64, err error) {
	all = map[string]int64{}
	err = t.Inside.Do(func() error {
		for _, name := range []string{"snmp", "netstat", "snmp6"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + name)
			if errors.Is(err, os.ErrNotExist) {
				continue
			} else if err != nil {
				return err
			}
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			if name == "snmp6" {
				for _, line := range lines {
					if f := strings.Fields(line); len(f) == 2 {
						all[f[0]], _ = strconv.ParseInt(f[1], 10, 64)
					}
				}
				continue
			}
			for i := 0; i+1 < len(lines); i += 2 { // names, and numbers below them
				names, numbers := strings.Fields(lines[i]), strings.Fields(lines[i+1])
				for k := 1; k < min(len(names), len(numbers)); k++ {
					all[names[k]], _ = strconv.ParseInt(numbers[k], 10, 64)
				}
			}
		}
		return nil
	})
	return all, err
}

type ruleKey struct {
	family, table, chain string
	handle               uint64
}

// place1 is where a rule of the twin is on the host.
type place1 struct {
	table  *Table
	chain  *Chain
	number int // from 1
}

// tracer reads a twin's traces.
type tracer struct {
	config *Snapshot
	writer *writer
	rules  map[ruleKey]place1
	chains map[ruleKey]*Chain
	texts  map[ruleKey]string
	events []traceEvent
	ids    map[uint32]traceEvent // the last headers of a packet
	any    bool                  // packets of protocols without ports are traced too
}

// learn reads the twin's rules.
func (tr *tracer) learn(ctx context.Context, t *Twin) error {
	d := &Dump{}
	if err := t.Inside.Do(func() error { return d.readNFT(ctx) }); err != nil {
		return err
	}
	twin, err := decode(d)
	if err != nil {
		return err
	}
	tr.know(twin)
	return nil
}

// know maps the handles of the twin's rules to the host's rules, by their place in the chain.
func (tr *tracer) know(twin *Snapshot) {
	tr.rules, tr.chains, tr.texts = map[ruleKey]place1{}, map[ruleKey]*Chain{}, map[ruleKey]string{}
	hosts := map[ruleKey]place1{}
	for _, table := range tr.config.Tables {
		for _, chain := range table.Chains {
			hosts[ruleKey{table.Family, table.Name, chain.Name, 0}] = place1{table, chain, 0}
		}
	}
	for _, table := range twin.Tables {
		for _, chain := range table.Chains {
			key := ruleKey{table.Family, table.Name, chain.Name, 0}
			tr.chains[key] = chain
			host, ok := hosts[key]
			if !ok || len(host.chain.Rules) != len(chain.Rules) {
				continue
			}
			for i, r := range chain.Rules {
				key.handle = r.Handle
				tr.rules[key] = place1{host.table, host.chain, i + 1}
			}
		}
	}
}

// traceBuffer is the read buffer of a socket for traces, set before the first packet. With a
// smaller one events are only lost sooner, which is said.
const traceBuffer = 8 << 20

// receiveTraces passes messages to take until the answer to a fence comes.
func receiveTraces(c *netlink.Conn, take func(netlink.Message)) error {
	for {
		messages, err := c.Receive()
		if err != nil {
			return err
		}
		end := false
		for _, m := range messages {
			if uint16(m.Header.Type) == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
				end = true
				continue
			}
			take(m)
		}
		if end {
			return nil
		}
	}
}

// fenceTraces asks what receiveTraces ends with: the answer is behind all events.
func fenceTraces(c *netlink.Conn) error {
	_, err := c.Send(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, 4),
	})
	return err
}

// listen begins to read traces; the function that it returns ends that once all are read.
func (tr *tracer) listen(t *Twin) (stop func() error, err error) {
	nft, err := t.Inside.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	if err := nft.JoinGroup(unix.NFNLGRP_NFTRACE); err != nil {
		_ = nft.Close()
		return nil, fmt.Errorf("traces of nf_tables: %w", err)
	}
	conns := []*netlink.Conn{nft}
	if len(tr.config.Legacy) > 0 {
		log, err := t.traceLegacy()
		if err != nil {
			_ = nft.Close()
			return nil, fmt.Errorf("traces of iptables-legacy: %w", err)
		}
		conns = append(conns, log)
	}
	type read struct {
		events []traceEvent
		err    error
	}
	done := make(chan read, len(conns))
	for _, c := range conns {
		_ = c.SetReadBuffer(traceBuffer)
		go func() {
			var r read
			r.err = receiveTraces(c, func(m netlink.Message) {
				switch uint16(m.Header.Type) {
				case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_TRACE:
					r.events = append(r.events, tr.nftEvent(m.Data)...)
				case unix.NFNL_SUBSYS_ULOG << 8: // NFULNL_MSG_PACKET
					r.events = append(r.events, tr.logEvent(m.Data)...)
				}
			})
			done <- r
		}()
	}
	return func() error {
		var errs []error
		for _, c := range conns {
			if err := fenceTraces(c); err != nil {
				errs = append(errs, err, c.Close())
			}
		}
		var legacy []traceEvent
		for range conns {
			r := <-done
			if r.err != nil {
				errs = append(errs, fmt.Errorf("read traces: %w", r.err))
			}
			for _, e := range r.events {
				if e.hop.Legacy {
					legacy = append(legacy, e)
				} else {
					tr.events = append(tr.events, e)
				}
			}
		}
		tr.merge(legacy)
		for _, c := range conns {
			_ = c.Close()
		}
		return errors.Join(errs...)
	}, nil
}

// traceLegacy has what traced packets meet in iptables-legacy's tables logged to a socket.
func (t *Twin) traceLegacy() (*netlink.Conn, error) {
	err := t.Inside.Do(func() error {
		// A family whose module is not there can't be bound and has no tables.
		for _, family := range []string{"2", "10"} {
			if err := os.WriteFile("/proc/sys/net/netfilter/nf_log/"+family, []byte("nfnetlink_log"), 0); err != nil &&
				!errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c, err := t.Inside.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	config := func(family byte, all attrs) error {
		_, err := c.Execute(netlink.Message{
			// NFULNL_MSG_CONFIG
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_ULOG<<8 | 1, Flags: netlink.Request | netlink.Acknowledge},
			Data:   all.append([]byte{family, unix.NFNETLINK_V0, 0, 0}),
		})
		return err
	}
	// NFULA_CFG_CMD: NFULNL_CFG_CMD_PF_BIND, NFULNL_CFG_CMD_BIND; NFULA_CFG_MODE: range,
	// NFULNL_COPY_PACKET; NFULA_CFG_QTHRESH: each at once.
	for _, step := range []struct {
		family byte
		all    attrs
	}{
		{unix.AF_INET, attrs{{1, []byte{3}}}}, {unix.AF_INET6, attrs{{1, []byte{3}}}}, {0, attrs{{1, []byte{1}}}},
		{0, attrs{{2, []byte{0, 0, 0, 128, 2, 0}}, {5, be32(1)}}},
	} {
		if err := config(step.family, step.all); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	return c, nil
}

// Attributes of NFT_MSG_TRACE (enum nft_trace_attributes, linux/netfilter/nf_tables.h).
const (
	traceTableName  = 1
	traceChain      = 2
	traceRuleHandle = 3
	traceType       = 4
	traceVerdict    = 5
	traceID         = 6
	traceNetwork    = 8
	traceTransport  = 9
	traceIn         = 10
	traceOut        = 12
	traceMark       = 14
	tracePolicy     = 16
)

func (tr *tracer) nftEvent(b []byte) []traceEvent {
	if len(b) < 4 {
		return nil
	}
	n := nested{b[4:]}
	family := families[b[0]]
	key := ruleKey{family, n.get(traceTableName).text(), n.get(traceChain).text(), net64(n.get(traceRuleHandle).b)}
	kind := n.numberOf(traceType)
	if kind == 3 && key.handle == 0 {
		return nil // the end of a chain
	}
	e := traceEvent{id: n.numberOf(traceID)}
	h := &e.hop
	h.Family, h.Table, h.Chain, h.Handle = family, key.table, key.chain, key.handle
	h.Mark = n.numberOf(traceMark)
	h.In, h.Out = tr.device(n.get(traceIn)), tr.device(n.get(traceOut))
	chain := key
	chain.handle = 0
	if c := tr.chains[chain]; c != nil && c.Base && c.Hook < len(hookNames) {
		h.Hook, h.priority = hookNames[c.Hook], c.Priority
	}
	switch kind {
	case 1, 2:
		// A policy is also what a chain without a deciding rule ends with.
		h.Verdict = map[bool]string{false: "accept", true: "drop"}[n.numberOf(tracePolicy) == 0 &&
			len(n.get(tracePolicy).b) > 0]
		h.Rule = "policy " + h.Verdict
		if kind == 2 {
			h.Rule, h.Verdict = "return", "return"
		}
	default:
		h.Verdict = verdictText(n.get(traceVerdict))
		if code := int32(n.get(traceVerdict).numberOf(unix.NFTA_VERDICT_CODE)); code > 1 {
			h.Verdict = map[int32]string{2: "stolen", 3: "queue", 4: "repeat"}[code&0xff]
		}
		h.Rule = tr.text(key)
		if p, ok := tr.rules[key]; ok {
			h.Number, h.Handle = p.number, p.chain.Rules[p.number-1].Handle
		}
	}
	if network := n.get(traceNetwork).b; len(network) > 0 {
		e.known = e.headers(network, n.get(traceTransport).b, tr.any)
	}
	return []traceEvent{e}
}

// text is the text of a rule of the twin.
func (tr *tracer) text(key ruleKey) string {
	if s, ok := tr.texts[key]; ok {
		return s
	}
	p, ok := tr.rules[key]
	s := fmt.Sprintf("the rule with handle %d", key.handle)
	if ok {
		s = tr.writer.rule(p.table, p.chain.Rules[p.number-1])
	}
	tr.texts[key] = s
	return s
}

func (tr *tracer) device(n nested) string {
	i := int(n.number())
	for _, l := range tr.config.Links {
		if l.Index == i {
			return l.Name
		}
	}
	return ""
}

// headers reads addresses, ports and flags, and reports whether they are of TCP or UDP, or with
// any of another protocol, which has no ports.
func (e *traceEvent) headers(network, transport []byte, any bool) bool {
	if len(network) < 20 || len(transport) < 4 {
		return false
	}
	var from, to netip.Addr
	proto := network[9]
	if network[0]>>4 == 6 {
		if len(network) < 40 {
			return false
		}
		from, to = netip.AddrFrom16([16]byte(network[8:24])), netip.AddrFrom16([16]byte(network[24:40]))
		proto = network[6]
	} else {
		from, to = netip.AddrFrom4([4]byte(network[12:16])), netip.AddrFrom4([4]byte(network[16:20]))
	}
	e.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(transport))
	e.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(transport[2:]))
	switch proto {
	case unix.IPPROTO_TCP:
		if len(transport) < 14 {
			return false
		}
		e.proto, e.serial = "tcp", binary.BigEndian.Uint32(transport[4:])
		var names []string
		for _, f := range []bitName{{2, "SYN"}, {1, "FIN"}, {4, "RST"}, {8, "PSH"}, {16, "ACK"}} {
			if uint64(transport[13])&f.bit != 0 {
				names = append(names, f.name)
			}
		}
		e.flags = strings.Join(names, "+")
	case unix.IPPROTO_UDP:
		if len(transport) < 8 {
			return false
		}
		e.proto, e.serial = "udp", uint32(binary.BigEndian.Uint16(transport[4:]))
	default:
		e.proto, e.from, e.to = fmt.Sprint(proto), netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0)
		return any
	}
	return true
}

var tracePrefix = regexp.MustCompile(`^TRACE: ([a-z]+):([^:]+):(rule|return|policy):(\d+) `)

// logEvent reads a packet that iptables-legacy logged: "TRACE: mangle:PREROUTING:rule:3 ".
func (tr *tracer) logEvent(b []byte) []traceEvent {
	if len(b) < 4 {
		return nil
	}
	n := nested{b[4:]}
	m := tracePrefix.FindStringSubmatch(n.get(10).text()) // NFULA_PREFIX
	hook := n.get(1).b                                    // NFULA_PACKET_HDR: protocol u16, hook u8
	payload := n.get(9).b                                 // NFULA_PAYLOAD
	if m == nil || len(hook) < 3 || int(hook[2]) >= len(hookNames) || len(payload) < 20 {
		return nil
	}
	six := payload[0]>>4 == 6
	head := int(payload[0]&15) * 4
	if six {
		head = 40
	}
	var e traceEvent
	if len(payload) < head {
		return nil
	}
	e.known = e.headers(payload[:head], payload[head:], tr.any)
	h := &e.hop
	h.Legacy, h.Family, h.Table, h.Chain, h.Hook = true, map[bool]string{false: "ip", true: "ip6"}[six], m[1], m[2],
		hookNames[hook[2]]
	h.In, h.Out, h.Mark = tr.device(n.get(4)), tr.device(n.get(5)), n.get(2).number()
	h.priority = legacyPriority(h.Table, h.Hook)
	number, _ := strconv.Atoi(m[4])
	h.Number = number
	for _, t := range tr.config.Legacy {
		if t.IPv6 != six || t.Name != h.Table {
			continue
		}
		all, err := t.rules()
		if err != nil {
			continue
		}
		for _, r := range all {
			if r.chain == h.Chain && !r.head && r.number == number {
				h.Rule = tr.writer.legacyText(t, all, r)
				h.Verdict = legacyVerdict(h.Rule)
			}
		}
	}
	if m[3] == "return" {
		h.Verdict = "return"
	}
	return []traceEvent{e}
}

// legacyVerdict is what a rule's text does to packets.
func legacyVerdict(text string) string {
	if p, ok := strings.CutPrefix(text, "policy "); ok {
		return p
	}
	_, target, ok := strings.Cut(text, "-j ")
	if !ok {
		if _, chain, ok := strings.Cut(text, "-g "); ok {
			return "goto " + chain
		}
		return "continue"
	}
	switch word, _, _ := strings.Cut(target, " "); word {
	case "ACCEPT", "RETURN", "DROP":
		return strings.ToLower(word)
	case "REJECT":
		return "drop"
	case "MARK", "CONNMARK", "LOG", "NFLOG", "CT", "NOTRACK", "TCPMSS", "SET", "CLASSIFY", "TRACE":
		return "continue"
	case "TPROXY", "REDIRECT", "DNAT", "SNAT", "MASQUERADE", "NETMAP":
		return "accept"
	case "NFQUEUE":
		return "queue"
	default:
		return "jump " + word
	}
}

// legacyPriority is that of a table's chains (enum nf_ip_hook_priorities, linux/netfilter_ipv4.h).
func legacyPriority(table, hook string) int32 {
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

// setsMark is what a rule of legacy does to the mark.
var setsMark = regexp.MustCompile(`(?:-j MARK --set-xmark|--tproxy-mark) (0x[0-9a-f]+/0x[0-9a-f]+)`)

// packets makes packets of the events.
func (tr *tracer) packets() []PacketPath {
	type way struct {
		packet PacketPath
		last   traceEvent // with the headers that it has now
	}
	var all []*way
	open := map[uint32]*way{} // by ID
	looped := func(e traceEvent) *way {
		for i := len(all) - 1; i >= 0; i-- {
			l := all[i].last
			if l.hop.Hook == "postrouting" && l.hop.Out == "lo" && l.proto == e.proto && l.from == e.from &&
				l.to == e.to && l.flags == e.flags && l.serial == e.serial {
				return all[i]
			}
		}
		return nil
	}
	for _, e := range tr.events {
		w := open[e.id]
		begins := e.hop.Table == traceTable && strings.HasSuffix(e.hop.Chain, " first") &&
			(e.hop.Hook == "prerouting" || e.hop.Hook == "output")
		if begins && e.known && (w == nil || w.last.hop.Chain != e.hop.Chain) {
			w = nil
			if e.hop.Hook == "prerouting" && e.hop.In == "lo" {
				w = looped(e)
			}
			if w == nil {
				w = &way{packet: PacketPath{Proto: e.proto, From: e.from, To: e.to, Flags: e.flags}}
				all = append(all, w)
			}
			open[e.id] = w
		}
		if w == nil {
			continue
		}
		if !e.known { // the headers are told at the first event of a chain
			e.from, e.to, e.proto, e.flags, e.serial = w.last.from, w.last.to, w.last.proto, w.last.flags, w.last.serial
		}
		if e.hop.Hook == w.last.hop.Hook || e.hop.Hook == "" { // devices are told with the headers
			e.hop.In, e.hop.Out = cmp.Or(e.hop.In, w.last.hop.In), cmp.Or(e.hop.Out, w.last.hop.Out)
		}
		e.hop.From, e.hop.To = e.from, e.to
		w.last = e
		// The chain that a rule jumped into has no hook of its own.
		if e.hop.Hook == "" && len(w.packet.Hops) > 0 {
			before := w.packet.Hops[len(w.packet.Hops)-1]
			e.hop.Hook, e.hop.priority = before.Hook, before.priority
		}
		e.hop.own = e.hop.Table == traceTable
		w.packet.Hops = append(w.packet.Hops, e.hop)
	}
	packets := make([]PacketPath, len(all))
	for i, w := range all {
		packets[i] = w.packet
	}
	return packets
}

// merge puts what iptables-legacy logged between the events of nf_tables: of the same packet at the
// same hook, by the chains' priority.
func (tr *tracer) merge(legacy []traceEvent) {
	type seen struct {
		packet              int
		table, chain, where string
		number              int
	}
	have := map[seen]bool{}
	for _, l := range legacy {
		what := seen{table: l.hop.Table, chain: l.hop.Chain, where: l.hop.Hook, number: l.hop.Number}
		best := map[int]int{}          // where it belongs, by packet
		now := map[uint32]traceEvent{} // headers by ID
		chain := map[uint32]Hop{}      // of the base chain
		packet := map[uint32]int{}     // by ID
		for i, e := range tr.events {
			if e.known {
				now[e.id] = e
			}
			if e.hop.Table == traceTable && e.known && (e.hop.Chain == "prerouting first" ||
				e.hop.Chain == "output first") {
				packet[e.id] = i
			}
			if e.hop.Hook != "" {
				chain[e.id] = e.hop
			}
			at, h := chain[e.id], now[e.id]
			if at.Hook != l.hop.Hook || at.priority > l.hop.priority || h.proto != l.proto || h.flags != l.flags ||
				h.serial != l.serial {
				continue
			}
			// A hook translates the destination or the source, and not both.
			if source := at.Hook == "postrouting" || at.Hook == "input"; source && h.to != l.to || !source &&
				h.from != l.from {
				continue
			}
			if h.hop.In != l.hop.In && at.Hook != "output" && at.Hook != "postrouting" {
				continue
			}
			best[packet[e.id]] = i
		}
		// Of packets that are alike, as those that are sent again, the first that has it not yet.
		for _, p := range slices.Sorted(maps.Keys(best)) {
			what.packet = p
			if have[what] {
				continue
			}
			have[what] = true
			l.id = tr.events[best[p]].id
			tr.events = slices.Insert(tr.events, best[p]+1, l)
			moved := map[seen]bool{}
			for k := range have { // what is behind has moved by one
				if k.packet > best[p] {
					k.packet++
				}
				moved[k] = true
			}
			have = moved
			break
		}
	}
	// What a rule of legacy did to the mark shows in what follows.
	for i := range tr.events {
		if e := &tr.events[i]; e.hop.Legacy {
			var mark, mask uint32
			if m := setsMark.FindStringSubmatch(e.hop.Rule); m != nil {
				_, _ = fmt.Sscanf(m[1], "0x%x/0x%x", &mark, &mask) // as legacyText writes it
				e.hop.Mark = e.hop.Mark&^mask ^ mark
				continue
			}
			for _, o := range tr.events[i+1:] {
				if o.id == e.id {
					if o.hop.Hook == e.hop.Hook && !strings.HasSuffix(o.hop.Chain, " first") {
						e.hop.Mark = o.hop.Mark
					}
					break
				}
			}
		}
	}
}
