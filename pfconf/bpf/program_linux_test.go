//go:build bpf

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
	"pfdivert/roles/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

var tcp = Entry{Kind: To, Family: pfconf.Inet, Proto: pfconf.TCP, From: netip.MustParseAddr("10.1.2.3"),
	To: netip.MustParseAddr("10.4.5.6"), Port: 0x1234, Divert: netip.MustParseAddrPort("127.0.0.1:7"), Mark: 1}

// The kernel takes the programs, also without the helper that gives packets to sockets: then it
// refuses a listener, and nothing else.
func TestLoad(t *testing.T) {
	labtest.Need(t)
	for _, lacks := range []bool{false, true} {
		d, err := Open(Config{NoAssign: lacks})
		if err != nil {
			t.Fatal(err)
		}
		marked := tcp
		marked.Port, marked.Divert = 1, netip.AddrPort{}
		if err := d.Change(nil, []Entry{marked}); err != nil {
			t.Error(err)
		}
		var missing *need.MissingError
		err = d.Change([]Entry{marked}, []Entry{tcp})
		if errors.As(err, &missing) != lacks || !lacks && err != nil {
			t.Errorf("without the helper: %v, adding a listener: %v", lacks, err)
		}
		// What was refused has changed nothing.
		if _, err := d.Counters(marked); (err == nil) != lacks {
			t.Errorf("without the helper: %v, the removed entry: %v", lacks, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The kernel takes the programs of a Lookup, also the one for kernels that do not tell the
// interface. Without the helper that gives packets to sockets it has no such program.
func TestLoadLookup(t *testing.T) {
	labtest.Need(t)
	l, err := OpenLookup(Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := &program{rules: l.rules, socks: l.socks, assign: Config{}.assign()}
	old, err := loadLookup(p.look(false))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(old.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	var missing *need.MissingError
	if _, err := OpenLookup(Config{NoAssign: true}); !errors.As(err, &missing) || missing.Feature != need.BPFLookup {
		t.Errorf("without the helper: %v", err)
	}
}

// A change is made as a whole or not at all, and what stays keeps what it has counted.
func TestChange(t *testing.T) {
	labtest.Need(t)
	d, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	other := tcp
	other.Port++
	if err := d.Change(nil, []Entry{tcp}); err != nil {
		t.Fatal(err)
	}
	value := tcp.value()
	binary.NativeEndian.PutUint64(value[atMatched:], 5)
	if err := d.rules.Update(tcp.key(), value, ebpf.UpdateExist); err != nil {
		t.Fatal(err)
	}
	if err := d.Change([]Entry{tcp}, []Entry{other, other}); !errors.Is(err, ebpf.ErrKeyExist) {
		t.Errorf("adding an entry twice: %v", err)
	}
	if n, err := d.Counters(tcp); err != nil || n.Matched != 5 {
		t.Errorf("after a change that was refused: %+v, %v", n, err)
	}
	if _, err := d.Counters(other); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("the entry that was refused: %v", err)
	}
}

// Keys and values have addresses and ports as packets have them, and numbers in the host's order.
func TestLayout(t *testing.T) {
	key := tcp.key()
	want := append([]byte{1, 4, 6, 0, 0x12, 0x34, 0, 0, 10, 1, 2, 3}, make([]byte, 12)...)
	if want = append(want, 10, 4, 5, 6); !bytes.Equal(key[:28], want) {
		t.Errorf("key %x, want %x", key[:28], want)
	}
	value := tcp.value()
	addr, port := value[atAddr:atAddr+4], value[atPort:atPort+2]
	flags, mark := binary.NativeEndian.Uint32(value[atFlags:]), binary.NativeEndian.Uint32(value[atMark:])
	if !bytes.Equal(addr, []byte{127, 0, 0, 1}) || !bytes.Equal(port, []byte{0, 7}) || flags != flagAssign ||
		mark != 1 {
		t.Errorf("value %x", value)
	}
}
