//go:build !linux

package splat

import "errors"

// Log is a kernel's log that is read as it comes; only Linux' is.
type Log struct{}

// Open fails: what the BSDs log is not read.
func Open() (*Log, error) { return nil, errors.New("the kernel's log is read on Linux only") }

// Take returns nothing.
func (*Log) Take() []string { return nil }

// Close does nothing.
func (*Log) Close() error { return nil }
