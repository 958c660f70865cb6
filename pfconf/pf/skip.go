package pf

import (
	"encoding/binary"
	"fmt"
)

// The ioctls that set and clear flags of interfaces, and the one that commits what is loaded, with
// the size of an element there; and the flag of `set skip on` (OpenBSD's sys/net/pfvar.h:
// DIOCSETIFFLAG, DIOCCLRIFFLAG, DIOCXCOMMIT, struct pfioc_trans_e and PFI_IFLAG_SKIP).
const (
	setInterfaceFlag   = 0xC0284459
	clearInterfaceFlag = 0xC028445A
	commit             = 0xC0104452
	commitElement      = 4 + 1024 + 4
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
	// The flag is one with the next commit of any rules (pfi_xcommit, sys/net/pf_if.c). This one is
	// of none.
	b = make([]byte, 16) // struct pfioc_trans: how many elements, the size of one, a pointer
	binary.NativeEndian.PutUint32(b[4:], commitElement)
	if err := ioctl(commit, b); err != nil {
		return fmt.Errorf("DIOCXCOMMIT: %w", err)
	}
	return nil
}
