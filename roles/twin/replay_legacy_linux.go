package twin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blobLayout is the layout of struct ipt_entry or ip6t_entry.
type blobLayout struct {
	targetAt int // u16 target_offset, u16 next_offset
	counters int // two u64
	size     int
	source   int // offset of the source address and, at sourceMask, of its mask
	mask     int
	address  int // bytes of an address
}

// layout depends on how numbers of 64 bits are aligned, and that of 64 bits is the same everywhere
// else.
func (t *LegacyTable) layout() blobLayout {
	if t.IPv6 {
		// struct ip6t_ip6: src 16, dst 16, smsk 16, dmsk 16, iniface[16], outiface[16], masks 16
		// and 16, proto u16, tos, flags, invflags; nfcache u32, target_offset, next_offset,
		// comefrom u32, counters
		at := (148 + align64 - 1) &^ (align64 - 1)
		return blobLayout{targetAt: 140, counters: at, size: at + 16, source: 0, mask: 32, address: 16}
	}
	// struct ipt_ip: src, dst, smsk, dmsk, iniface[16], outiface[16], masks 16 and 16, proto u16,
	// flags, invflags; nfcache u32, target_offset, next_offset, comefrom u32, counters
	return blobLayout{targetAt: 88, counters: 96, size: 112, source: 0, mask: 8, address: 4}
}

// each calls f for each entry of the table, with its target's name.
func (t *LegacyTable) each(f func(entry []byte, target string) error) error {
	at := t.layout()
	for b := t.Entries; len(b) > 0; {
		if len(b) < at.size {
			return errAttr
		}
		target, next := int(host32(b[at.targetAt:at.targetAt+2])), int(host32(b[at.targetAt+2:at.targetAt+4]))
		// struct xt_entry_target: size u16, name[29], revision u8
		if target < at.size || next < target+32 || next > len(b) {
			return errAttr
		}
		if err := f(b[:next], text(b[target+2:target+31])); err != nil {
			return err
		}
		b = b[next:]
	}
	return nil
}

// matches calls f for each match of an entry.
func (t *LegacyTable) matches(e []byte, f func(name string, data []byte)) {
	at := t.layout()
	target := int(host32(e[at.targetAt : at.targetAt+2]))
	// struct xt_entry_match: size u16, name[29], revision u8
	for b := e[at.size:target]; len(b) >= 32; {
		size := int(host32(b[:2]))
		if size < 32 || size > len(b) {
			return
		}
		f(text(b[2:31]), b[32:size])
		b = b[size:]
	}
}

// clean is the table's entries without counters and without rules that would write to the host's
// log: they match nothing, and keep their place.
func (t *LegacyTable) clean() ([]byte, error) {
	c := LegacyTable{t.IPv6, t.Name, t.Info, bytes.Clone(t.Entries)}
	at := c.layout()
	return c.Entries, c.each(func(e []byte, target string) error {
		clear(e[at.counters : at.counters+16])
		switch target {
		case "LOG", "AUDIT":
			// The source 255.255.255.255 or ff…ff, which no packet has.
			for i := range at.address {
				e[at.source+i], e[at.mask+i] = 0xff, 0xff
			}
		case "IDLETIMER", "LED":
			return fmt.Errorf("target %s is the machine's and no namespace's", target)
		}
		return nil
	})
}

// legacy copies the tables of iptables-legacy and ip6tables-legacy.
func (r *replay) legacy() error {
	for _, t := range r.Legacy {
		f := legacyFamilies[b2i(t.IPv6)]
		err := t.replay(f)
		if err != nil {
			r.lack("iptables-legacy", "table %s of %s: %v", t.Name, legacyTool(t.IPv6), err)
		}
	}
	return nil
}

func legacyTool(ipv6 bool) string {
	if ipv6 {
		return "ip6tables-legacy"
	}
	return "iptables-legacy"
}

func (t *LegacyTable) replay(f legacyFamily) error {
	entries, err := t.clean()
	if err != nil {
		return err
	}
	fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	defer unix.Close(fd)
	now := make([]byte, legacyInfo)
	copy(now[:31], t.Name)
	// This makes the table, in the copy's namespace.
	if err := getsockopt(fd, f.level, soGetInfo, now); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOPROTOOPT) {
		return errors.New("this kernel has no such table")
	} else if err != nil {
		return err
	}
	// The kernel writes the counters of the table that is replaced: two u64 for each of its
	// entries.
	count := host32(now[76:80])
	counters := make([]uint64, 2*count+2)
	var pin runtime.Pinner
	pin.Pin(&counters[0])
	defer pin.Unpin()
	// struct ipt_replace: name[32], valid_hooks, num_entries, size, hook_entry[5], underflow[5],
	// num_counters, struct xt_counters *counters, entries
	b := make([]byte, 32, 128+len(entries))
	copy(b, t.Name)
	b = append(b, t.Info[32:36]...) // valid_hooks
	b = append(b, t.Info[76:84]...) // num_entries, size
	b = append(b, t.Info[36:76]...) // hook_entry, underflow
	b = binary.NativeEndian.AppendUint32(b, count)
	if unsafe.Sizeof(uintptr(0)) == 8 {
		b = binary.NativeEndian.AppendUint64(b, uint64(uintptr(unsafe.Pointer(&counters[0]))))
	} else {
		b = binary.NativeEndian.AppendUint32(b, uint32(uintptr(unsafe.Pointer(&counters[0]))))
	}
	for len(b)%align64 != 0 {
		b = append(b, 0)
	}
	return setsockopt(fd, f.level, soReplace, append(b, entries...))
}
