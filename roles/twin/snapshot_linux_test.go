package twin

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"pfdivert/pfconf/xt"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/wire"
)

// everything is a script that sets up a host with some of all.
const everything = `
	ip link add wan0 index 7 address 00:16:3e:44:55:66 type veth peer name wan0x
	ip link add lan0 index 9 address 00:16:3e:77:88:99 type veth peer name lan0x
	ip link set lo up
	ip addr add 198.51.100.2/24 dev wan0
	ip addr add 192.168.1.1/24 dev lan0
	ip addr add 2001:db8:1::1/64 dev lan0 nodad
	for l in wan0 wan0x lan0 lan0x; do ip link set $l addrgenmode none; ip link set $l up; done
	ip route add default via 198.51.100.1
	ip route add local 0.0.0.0/0 dev lo table 100
	ip rule add fwmark 0x1 lookup 100
	ip neigh add 192.168.1.20 lladdr 00:16:3e:01:02:03 dev lan0
	ip neigh add 192.168.1.21 lladdr 00:16:3e:01:02:04 dev lan0
	nft -f testdata/replay/rules.nft
	nft add rule inet proxy prerouting ip saddr 192.168.1.20 ether saddr 00:16:3e:01:02:03 accept comment \"the phone of a person\"
	iptables-legacy-restore < testdata/replay/rules.iptables
	ipset restore < testdata/replay/sets.ipset
`

// saved is a snapshot of a namespace, as it would be saved there.
func saved(t testing.TB, host *Netns) (*Snapshot, []byte) {
	t.Helper()
	live, err := host.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := live.Save(&b); err != nil {
		t.Fatal(err)
	}
	return live, b.Bytes()
}

// A snapshot replays as what was read does, is small, and has nothing that is no one's business.
func TestSnapshot(t *testing.T) {
	host := newNetns(t)
	shell(t, host, everything)
	_, file := saved(t, host)
	t.Logf("%d bytes", len(file))
	if len(file) > 16<<10 {
		t.Errorf("a snapshot of %d bytes", len(file))
	}
	loaded, err := Load(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	inside, outside := newNetns(t), newNetns(t)
	lacks, err := loaded.Replay(context.Background(), inside, outside)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := inside.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(lacks, Compare(loaded, twin)...) {
		t.Error(d)
	}
	z, err := gzip.NewReader(bytes.NewReader(file[len(snapshotHead):]))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{
		"vendor": "\x00\x16\x3e", "comment": "the phone", "comment of a table": "one of each",
		"comment of an element": "phone",
		"comment of iptables":   "all datagrams", "comment of ipset": "web", "other neighbor": "\xc0\xa8\x01\x15",
		"kernel function": "nft_",
	} {
		if bytes.Contains(plain, []byte(secret)) {
			t.Errorf("%s is in the snapshot", name)
		}
	}
	if len(loaded.Neighbors) != 0 {
		t.Errorf("neighbors are in the snapshot: %v", loaded.Neighbors)
	}
}

// What is no snapshot, of another machine or too large is refused, with a hint.
func TestSnapshotRefused(t *testing.T) {
	host := newNetns(t)
	shell(t, host, "ip link set lo up")
	_, good := saved(t, host)
	pack := func(change func(*Dump)) []byte {
		c, err := Load(bytes.NewReader(good))
		if err != nil {
			t.Fatal(err)
		}
		change(&c.Dump)
		b, err := wire.Append(nil, c.Dump)
		if err != nil {
			t.Fatal(err)
		}
		return packed(b)
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "cut"},
		{"text", []byte("table inet filter { chain input { } }"), "is none"},
		{"newer", []byte("pfdivert snapshot 9\nxxxxxxx"), "another version"},
		{"cut", good[:len(good)/2], "unexpected EOF"},
		{"bomb", packed(make([]byte, maxSnapshot+1)), "more than 64 MB"},
		{"big endian", pack(func(d *Dump) { d.System.BigEndian = !d.System.BigEndian }), "it is of a system"},
		{"other pointers", pack(func(d *Dump) { d.System.PointerBits = 96 - d.System.PointerBits }),
			"it is of a system"},
		{"path in a setting", pack(func(d *Dump) { d.Settings["x"] = "\x1b[2J" }), "setting"},
		{"terminal", pack(func(d *Dump) { d.NotCloned = []string{"\x1b]0;x\x07"} }), "a text"},
		{"path as a name", pack(func(d *Dump) {
			d.Links[0] = bytes.Replace(d.Links[0], []byte("lo\x00"),
				[]byte("..\x00"), 1)
		}), "device"},
		{"devices", pack(func(d *Dump) { d.Links = make([][]byte, maxLinks+1) }), "network devices"},
		{"no message", pack(func(d *Dump) { d.Routes = [][]byte{{2}} }), "cut"},
		{"legacy", pack(func(d *Dump) {
			d.Legacy = []LegacyTable{{Name: "nat", Info: make([]byte, xt.InfoSize), Entries: []byte{1}}}
		}), "legacy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(bytes.NewReader(c.file))
			var refused *SnapshotError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) || refused.Hint() == "" {
				t.Errorf("%v; want %q in it, and a hint", err, c.want)
			}
		})
	}
}

// packed is CBOR as a snapshot's file.
func packed(b []byte) []byte {
	var file bytes.Buffer
	file.WriteString(snapshotHead)
	z := gzip.NewWriter(&file)
	_, _ = z.Write(b)
	_ = z.Close()
	return file.Bytes()
}

// A snapshot that root saved is the same twin where an ordinary user runs it in a user namespace.
func TestSnapshotAsUser(t *testing.T) {
	if file := os.Getenv("TWIN_TEST_SNAPSHOT"); file != "" {
		replayFile(t, file)
		return
	}
	labtest.Root(t)
	labtest.NeedUsers(t)
	host := newNetns(t)
	shell(t, host, everything)
	_, file := saved(t, host)
	out := asUser(t, 65534, file, "TestSnapshotAsUser", "TWIN_TEST_SNAPSHOT")
	if !strings.Contains(out, "the twin is the same") {
		t.Error(out)
	}
}

// replayFile replays a snapshot in a user namespace.
func replayFile(t *testing.T, file string) {
	if !Enclosed() {
		enclose(t)
		return
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := Load(f)
	if err != nil {
		t.Fatal(err)
	}
	if !OneOwner() {
		t.Error("the process has several users")
	}
	if c, err = c.As(0, 0); err != nil {
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
	if !t.Failed() {
		t.Log("the twin is the same")
	}
}
