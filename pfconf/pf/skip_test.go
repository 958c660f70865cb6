package pf

import (
	"encoding/binary"
	"errors"
	"slices"
	"syscall"
	"testing"
)

// The structure is that of OpenBSD's sys/net/pfvar.h.
func TestSkip(t *testing.T) {
	var request, last uint32
	var given, end []byte
	ioctl := func(r uint32, b []byte) error {
		request, given, last, end = last, end, r, slices.Clone(b)
		return nil
	}
	for on, number := range map[bool]uint32{true: 3<<30 | 40<<16 | 'D'<<8 | 89, false: 3<<30 | 40<<16 | 'D'<<8 | 90} {
		if err := skip("lo0", on, ioctl); err != nil || request != number || len(given) != 40 ||
			string(given[:4]) != "lo0\x00" || given[37] != 1 {
			t.Errorf("%v: %v, request %#x with %q, want %#x", on, err, request, given, number)
		}
		if last != 3<<30|16<<16|'D'<<8|82 || len(end) != 16 || binary.NativeEndian.Uint32(end[4:]) != 1032 {
			t.Errorf("committed by %#x with %q", last, end)
		}
	}
	for _, name := range []string{"", "an-interface-of-16"} {
		if skip(name, true, ioctl) == nil {
			t.Errorf("%q is taken", name)
		}
	}
	if err := skip("lo0", true, func(uint32, []byte) error { return syscall.EPERM }); !errors.Is(err, syscall.EPERM) {
		t.Errorf("refused: %v", err)
	}
}
