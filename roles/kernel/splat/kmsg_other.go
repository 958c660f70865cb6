//go:build !linux

package splat

import "errors"

// KernelLog is a kernel's log that is read as it comes; only Linux' is.
type KernelLog struct{}

// Open fails: what the BSDs log is not read.
func Open() (*KernelLog, error) { return nil, errors.New("the kernel's log is read on Linux only") }

// Take returns nothing.
func (*KernelLog) Take() []string { return nil }

// Close does nothing.
func (*KernelLog) Close() error { return nil }
