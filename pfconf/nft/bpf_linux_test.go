//go:build bpf

package nft

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"pfdivert/pfconf"
	"pfdivert/pfconf/rtnetlink"
	"pfdivert/roles/lab/labtest"
)

// What a killed driver left is undone from its journal: the filters go, and the qdisc with them
// unless it was there before.
func TestUndoBPF(t *testing.T) {
	for _, before := range []string{"", "qdisc add dev v0 clsact"} {
		l, config := newLab(t), testConfig()
		config.Engine, config.Interface = pfconf.BPF, "v0"
		tc := func(args string) (out []byte) {
			path := labtest.Program(t, "tc")
			l.remote.do(t, func() { out, _ = exec.Command(path, strings.Fields(args)...).CombinedOutput() })
			return out
		}
		tc(before)
		var journal []pfconf.Undo
		config.Journal = func(u pfconf.Undo) error {
			journal = append(journal, u)
			return nil
		}
		l.remote.open(t, config)
		if got := string(tc("filter show dev v0 ingress")); !strings.Contains(got, TableName) {
			t.Fatalf("%q: no filter is there: %s", before, got)
		}
		l.remote.do(t, func() {
			for _, u := range slices.Backward(journal) {
				check(t, Undo(t.Context(), u))
				check(t, Undo(t.Context(), u))
			}
		})
		for _, hook := range []string{"ingress", "egress"} {
			if got := string(tc("filter show dev v0 " + hook)); strings.Contains(got, TableName) {
				t.Errorf("%q: a filter is left: %s", before, got)
			}
		}
		left := strings.Contains(string(tc("qdisc show dev v0")), clsact)
		if want := before != ""; want != left {
			t.Errorf("%q: the qdisc is left: %v", before, left)
		}
	}
}

// Another's filters at the interface, before and behind this program's, see all packets and stay,
// as the qdisc does that they need. One with the very priority is not taken for ours.
func TestForeignFilters(t *testing.T) {
	l, config := newLab(t), testConfig()
	config.Engine, config.Interface = pfconf.BPF, "v0"
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	check(t, err)
	defer counts.Close()
	theirs, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "ISC",
		Instructions: asm.Instructions{
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, counts.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "end"),
			asm.Mov.Imm(asm.R1, 1), asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
			asm.Mov.Imm(asm.R0, -1).WithSymbol("end"), asm.Return(), // TC_ACT_UNSPEC
		}})
	check(t, err)
	defer theirs.Close()
	var routes *rtnetlink.Conn
	l.remote.do(t, func() { routes = route(t) })
	nic, err := routes.Link("v0")
	check(t, err)
	check(t, routes.AddClsact(nic.Index))
	add := func(hook rtnetlink.Hook, priority uint16) {
		check(t, routes.AddFilter(rtnetlink.BPFFilter{Link: nic.Index, Hook: hook, Priority: priority, Name: "theirs",
			Program: theirs.FD()}))
	}
	// left lists the priorities of the filters that are there.
	left := func(hook rtnetlink.Hook) (priorities []uint16) {
		all, err := routes.Filters(nic.Index, hook)
		check(t, err)
		for _, f := range all {
			if f.Name != "" {
				priorities = append(priorities, f.Priority)
			}
		}
		return priorities
	}
	for _, hook := range hooks {
		add(hook, 1)
		add(hook, 40000)
	}
	f := l.remote.open(t, config)
	if got := left(rtnetlink.Ingress); !slices.Equal(got, []uint16{1, filterPriority, 40000}) {
		t.Errorf("filters %d", got)
	}
	r := toRule(pfconf.Inet, pfconf.UDP, 7020)
	check(t, f.Change(t.Context(), []pfconf.Rule{r}, nil))
	var server net.PacketConn
	var client net.Conn
	l.remote.do(t, func() { server, err = net.ListenPacket("udp", r.Divert.String()) })
	check(t, err)
	defer server.Close()
	l.local.do(t, func() { client, err = net.Dial("udp", netip.AddrPortFrom(r.To, r.Port).String()) })
	check(t, err)
	defer client.Close()
	var before, after uint64
	check(t, counts.Lookup(uint32(0), &before))
	_, err = client.Write([]byte("x"))
	check(t, err)
	check(t, server.SetReadDeadline(ended()))
	_, _, err = server.ReadFrom(make([]byte, 1))
	check(t, err)
	check(t, counts.Lookup(uint32(0), &after))
	if n := f.counted(t, r.Label); n.Done != 1 || after < before+2 {
		t.Errorf("counted %+v; another's filters saw %d packets, want 2 at least", n, after-before)
	}
	check(t, f.Close(t.Context()))
	for _, hook := range hooks {
		if got := left(hook); !slices.Equal(got, []uint16{1, 40000}) {
			t.Errorf("filters afterwards: %d", got)
		}
	}

	add(rtnetlink.Ingress, filterPriority)
	var taken *TakenError
	l.remote.do(t, func() { _, err = Open(t.Context(), config) })
	if !errors.As(err, &taken) {
		t.Errorf("with another's filter of the priority: %v", err)
	}
	l.remote.do(t, func() { check(t, Undo(t.Context(), pfconf.Undo{Do: undoBPF, Args: []string{"v0", clsact}})) })
	if got := left(rtnetlink.Ingress); !slices.Equal(got, []uint16{1, filterPriority, 40000}) {
		t.Errorf("filters when the journal of a run that was refused is undone: %d", got)
	}
}
