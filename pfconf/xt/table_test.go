package xt

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pfdivert/pfconf"
)

// initial is a table as the kernel makes it: chains of hooks with the policy accept.
func initial(ipv6 bool) *Table {
	t := &Table{IPv6: ipv6, Name: "mangle"}
	for hook, name := range Hooks {
		policy := t.Entry(Rule{Verdict: Accept})
		t.Chains = append(t.Chains, Chain{Name: name, Hook: hook, Rules: []Entry{policy}})
	}
	return t
}

// filled is a table with rules of each form.
func filled(t testing.TB, ipv6 bool) *Table {
	t.Helper()
	table := initial(ipv6)
	from, to := netip.MustParseAddr("10.188.1.2"), netip.MustParseAddr("10.188.2.9")
	f := pfconf.Inet
	if ipv6 {
		from, to, f = netip.MustParseAddr("fd00:188:1::2"), netip.MustParseAddr("fd00:188:2::9"), pfconf.Inet6
	}
	local := netip.AddrPortFrom(f.Loopback(), 7001)
	all := Rule{From: from, To: to, In: "v0", Proto: pfconf.TCP.Number(f)}
	with := func(target Extension, matches ...Extension) Rule {
		r := all
		r.Target, r.Matches = target, append(matches, Comment("regress-a"))
		return r
	}
	for _, r := range []Rule{
		with(TProxy(local, 0x70660076), Ports(pfconf.TCP, 0, 7001)), with(SetMark(7), ConnMarked(7)),
		with(SetConnMark(7), Replying()), with(NFQueue(666, true), Ports(pfconf.UDP, 9, 0)), with(DNAT(local)),
		{From: from, To: to, Verdict: Drop}, {Verdict: Return}, {Jump: "other-a"}, {},
	} {
		if r.Jump != "" {
			table.Chain(r.Jump)
		}
		table.Add("own-pre", r)
	}
	if err := table.Insert("PREROUTING", Rule{Jump: "own-pre"}); err != nil {
		t.Fatal(err)
	}
	return table
}

// A table is the same when it was put together, taken apart and put together again; without this
// program's rules it is as it was.
func TestTable(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		info, entries, err := filled(t, ipv6).Encode()
		if err != nil {
			t.Fatal(err)
		}
		table, err := Parse("mangle", ipv6, info, entries)
		if err != nil {
			t.Fatal(err)
		}
		again, same, err := table.Encode()
		if err != nil || again != info || !bytes.Equal(same, entries) {
			t.Errorf("ipv6 %v: %v, %+v and %+v", ipv6, err, info, again)
		}
		if got := table.Packets("own-"); len(got) != 1 {
			t.Errorf("counters %v", got)
		}
		if any, left := table.Remove("own-"); !any || left != 0 {
			t.Errorf("removed %v, %d left", any, left)
		}
		table.Remove("other-")
		_, bare, err := table.Encode()
		_, want, _ := initial(ipv6).Encode()
		if err != nil || !bytes.Equal(bare, want) {
			t.Errorf("ipv6 %v: not as it was: %v", ipv6, err)
		}
		table.Add("own-x", Rule{Jump: "nowhere"})
		if _, _, err := table.Encode(); err == nil {
			t.Error("a jump to no chain is put together")
		}
	}
}

// The layouts are those that the kernel took on amd64: the test of the driver has it take them.
func TestGolden(t *testing.T) {
	if alignment != 8 || binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the file is of a machine that is little-endian and aligns numbers of 64 bits to 8")
	}
	for _, ipv6 := range []bool{false, true} {
		name := filepath.Join("testdata", map[bool]string{false: "ip", true: "ip6"}[ipv6]+"-mangle.bin")
		_, got, err := filled(t, ipv6).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(name, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the table is another: %v", name, err)
		}
	}
}

// FuzzParse: a table that is cut or leads nowhere is refused, and any other can be put together.
func FuzzParse(f *testing.F) {
	for _, ipv6 := range []bool{false, true} {
		info, entries, err := filled(f, ipv6).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(ipv6, info.Hooks, info.Begin[1], entries)
		f.Add(ipv6, info.Hooks, info.Begin[1], entries[:len(entries)-9])
	}
	f.Fuzz(func(t *testing.T, ipv6 bool, hooks, begin uint32, entries []byte) {
		table, err := Parse("mangle", ipv6, Info{Hooks: hooks, Begin: [5]uint32{1: begin}}, slices.Clone(entries))
		if err != nil {
			return
		}
		table.Packets("own-")
		table.Remove("own-")
		_, _, _ = table.Encode()
	})
}
