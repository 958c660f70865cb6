package pf

import (
	"encoding/binary"
	"fmt"
)

// The ioctls that set and clear flags of interfaces, and the flag of `set skip on` (OpenBSD's
// sys/net/pfvar.h: DIOCSETIFFLAG, DIOCCLRIFFLAG and PFI_IFLAG_SKIP).
const (
	setInterfaceFlag   = 0xC0284459
	clearInterfaceFlag = 0xC028445A
	interfaceSkip      = 0x0100
)

// skip has pf see the packets of an interface of OpenBSD, or not see them as with `set skip on`, by
// way of ioctl. The rules that are loaded stay as they are.
func skip(name string, on bool, ioctl func(request uint32, b []byte) error) error {
	const longest = 15 // IFNAMSIZ without its NUL
	if name == "" || len(name) > longest {
		return fmt.Errorf("%q can't be the name of an interface", name)
	}
	b := make([]byte, 40) // struct pfioc_iface: the name, a pointer, three sizes, the flags
	copy(b, name)
	binary.NativeEndian.PutUint32(b[36:], interfaceSkip)
	request, what := uint32(clearInterfaceFlag), "DIOCCLRIFFLAG"
	if on {
		request, what = setInterfaceFlag, "DIOCSETIFFLAG"
	}
	if err := ioctl(request, b); err != nil {
		return fmt.Errorf("%s %s: %w", what, name, err)
	}
	return nil
}
