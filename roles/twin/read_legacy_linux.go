package twin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
)

// Options of linux/netfilter_ipv4/ip_tables.h; those of IPv6 have the same numbers.
const (
	soGetInfo    = 64 // IPT_SO_GET_INFO: struct ipt_getinfo
	soGetEntries = 65 // IPT_SO_GET_ENTRIES: struct ipt_get_entries
	soReplace    = 64 // IPT_SO_SET_REPLACE: struct ipt_replace
)

// legacyInfo is the size of struct ipt_getinfo: name[32], valid_hooks u32, hook_entry[5] u32,
// underflow[5] u32, num_entries u32, size u32.
const legacyInfo = 84

// legacyFamily is one of the two old iptables.
type legacyFamily struct {
	ipv6          bool
	names         string // file below /proc/net that lists the tables that are there
	domain, level int
}

var legacyFamilies = []legacyFamily{
	{false, "ip_tables_names", unix.AF_INET, unix.IPPROTO_IP},
	{true, "ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6},
}

// readLegacy reads the tables of iptables-legacy and ip6tables-legacy. It asks for none that is not
// there, because the kernel would make it, and load its module.
func (d *Dump) readLegacy(context.Context) error {
	for _, f := range legacyFamilies {
		names, err := procNet(f.names)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(strings.Fields(string(names))) == 0 {
			continue
		} else if err != nil {
			return err
		}
		fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return fmt.Errorf("raw socket: %w", err)
		}
		for _, name := range strings.Fields(string(names)) {
			t := LegacyTable{IPv6: f.ipv6, Name: name}
			if t.Info, t.Entries, err = legacyEntries(fd, f.level, name); err != nil {
				break
			}
			d.Legacy = append(d.Legacy, t)
		}
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// legacyEntries reads a table that is there.
func legacyEntries(fd, level int, table string) (info, entries []byte, err error) {
	for range dumpTries {
		info = make([]byte, legacyInfo)
		copy(info[:31], table)
		if err := getsockopt(fd, level, soGetInfo, info); err != nil {
			return nil, nil, fmt.Errorf("table %s: %w", table, err)
		}
		size := binary.NativeEndian.Uint32(info[80:])
		// struct ipt_get_entries: name[32], size u32, entries
		b := make([]byte, legacyHead+int(size))
		copy(b[:31], table)
		binary.NativeEndian.PutUint32(b[32:], size)
		if err = getsockopt(fd, level, soGetEntries, b); err == nil {
			return info, b[legacyHead:], nil
		}
		if !errors.Is(err, unix.EAGAIN) { // EAGAIN: it changed meanwhile
			break
		}
	}
	return nil, nil, fmt.Errorf("table %s: %w", table, err)
}

// legacyHead is the size of struct ipt_get_entries: its entries are aligned like numbers of 64 bits
// in C.
var legacyHead = xt.Align(32 + 4)

func getsockopt(fd, level, option int, b []byte) error {
	n := uint32(len(b))
	if _, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0); e != 0 {
		return e
	}
	return nil
}

func setsockopt(fd, level, option int, b []byte) error {
	if _, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0); e != 0 {
		return e
	}
	return nil
}
