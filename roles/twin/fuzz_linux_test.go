package twin

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"io"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"pfdivert/roles/wire"
)

var updateSnapshot = flag.Bool("update-snapshot", false, "write testdata/snapshot/everything.wire anew, on a machine of 64 bits, little endian")

// goldenSnapshot is the inside of a snapshot with some of all that a host can have.
const goldenSnapshot = "testdata/snapshot/everything.wire"

// The golden snapshot can be read, and replays as when it was written.
func TestGoldenSnapshot(t *testing.T) {
	if *updateSnapshot {
		host := newNetns(t)
		shell(t, host, everything)
		_, file := saved(t, host)
		z, err := gzip.NewReader(bytes.NewReader(file[len(snapshotHead):]))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenSnapshot, plain, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(goldenSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	c, err := unpacked(b)
	var other *SnapshotError
	if errors.As(err, &other) && (pointerBits != 64 || bigEndian) {
		return // refused, as it must be
	} else if err != nil {
		t.Fatal(err)
	}
	inside, outside := newNetns(t), newNetns(t)
	lacks, err := c.Replay(context.Background(), inside, outside)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := inside.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(lacks, Compare(c, twin)...) {
		t.Error(d)
	}
}

// FuzzSnapshot reads snapshots that someone else may have written: none breaks the reader, what
// plans flows from it, what names its rules, or what makes requests to the kernel of it. The
// requests themselves are the kernel's to check, in a user namespace.
func FuzzSnapshot(f *testing.F) {
	b, err := os.ReadFile(goldenSnapshot)
	if err != nil {
		f.Fatal(err)
	}
	var whole Dump
	if err := wire.Unpack(b, &whole); err != nil {
		f.Fatal(err)
	}
	// A part at a time: small inputs are changed where it matters, and fast.
	part := func(d Dump) {
		d.System = system()
		b, err := wire.Append(nil, d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	part(Dump{Links: whole.Links[:2], Addrs: whole.Addrs[:2]})
	part(Dump{Links: whole.Links[:2], Routes: whole.Routes[:3], Rules: whole.Rules[:3]})
	part(Dump{Sockets: []BoundSocket{{Proto: "tcp", Local: netip.MustParseAddrPort("127.0.0.1:80")}},
		Settings: map[string]string{"ipv4/ip_forward": "1"}})
	for _, t := range whole.Legacy {
		part(Dump{Legacy: []LegacyTable{t}})
	}
	part(Dump{Sets: whole.Sets})
	var head []NetlinkMessage // tables, chains, sets: what rules need
	for _, m := range whole.NFT {
		if m.Type&0xff != unix.NFT_MSG_NEWRULE && m.Type&0xff != unix.NFT_MSG_NEWSETELEM {
			head = append(head, m)
		}
	}
	some := 0
	for _, m := range whole.NFT {
		if m.Type&0xff == unix.NFT_MSG_NEWRULE || m.Type&0xff == unix.NFT_MSG_NEWSETELEM {
			if some++; some%3 == 0 {
				part(Dump{NFT: append(head[:len(head):len(head)], m)})
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := unpacked(b)
		if err != nil {
			return
		}
		if ds := Compare(c, c); len(ds) > 0 {
			t.Errorf("it differs from itself: %v", ds)
		}
		_, _ = c.As(1337, 7)
		_, _ = c.pseudonyms([32]byte{1})
		_ = c.Save(io.Discard) // what is cut deep inside is found there
		r := &replay{Snapshot: c, ctx: context.Background()}
		_, _ = r.nftGroups()
		for _, m := range c.Sets {
			netOrder(bytes.Clone(m.Data[4:]), ipsetIP, ipsetAttrADT)
		}
		for i := range c.Legacy {
			_, _ = c.Legacy[i].clean()
		}
		for _, l := range c.Links {
			r.newLink(l, 0)
			r.setLink(l)
			r.portData(l)
		}
		for i := range c.Routes {
			_ = r.order(i)
		}
		for _, m := range c.Nexthops {
			cleanNexthop(m)
		}
		for _, flow := range Plan(c) {
			_, _ = c.Place(flow)
		}
		w := newWriter(c)
		for _, table := range c.Tables {
			for _, chain := range table.Chains {
				for _, rule := range chain.Rules {
					w.rule(table, rule)
				}
			}
		}
		c.asksCgroups()
	})
}
