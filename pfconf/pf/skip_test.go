package pf

import (
	"errors"
	"slices"
	"syscall"
	"testing"
)

// The structure is that of OpenBSD's sys/net/pfvar.h.
func TestSkip(t *testing.T) {
	var request uint32
	var given []byte
	ioctl := func(r uint32, b []byte) error {
		request, given = r, slices.Clone(b)
		return nil
	}
	for on, number := range map[bool]uint32{true: 3<<30 | 40<<16 | 'D'<<8 | 89, false: 3<<30 | 40<<16 | 'D'<<8 | 90} {
		if err := skip("lo0", on, ioctl); err != nil || request != number || len(given) != 40 ||
			string(given[:4]) != "lo0\x00" || given[37] != 1 {
			t.Errorf("%v: %v, request %#x with %q, want %#x", on, err, request, given, number)
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
