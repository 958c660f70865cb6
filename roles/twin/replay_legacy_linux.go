package twin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
)

// each calls f for each entry of the table, with its target's name.
func (t *LegacyTable) each(f func(entry []byte, target string) error) error {
	at := xt.LayoutOf(t.IPv6)
	for b := t.Entries; len(b) > 0; {
		if len(b) < at.Size {
			return errAttr
		}
		target, next := int(host32(b[at.Target:at.Target+2])), int(host32(b[at.Target+2:at.Target+4]))
		// struct xt_entry_target: size u16, name[29], revision u8
		if target < at.Size || next < target+32 || next > len(b) {
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
	at := xt.LayoutOf(t.IPv6)
	target := int(host32(e[at.Target : at.Target+2]))
	// struct xt_entry_match: size u16, name[29], revision u8
	for b := e[at.Size:target]; len(b) >= 32; {
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
	at := xt.LayoutOf(c.IPv6)
	return c.Entries, c.each(func(e []byte, target string) error {
		clear(e[at.Counters : at.Counters+16])
		switch target {
		case "LOG", "AUDIT":
			// The source 255.255.255.255 or ff…ff, which no packet has.
			for i := range at.Address {
				e[i], e[2*at.Address+i] = 0xff, 0xff
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
	b = append(b, make([]byte, xt.Align(len(b))-len(b))...)
	return setsockopt(fd, f.level, soReplace, append(b, entries...))
}
