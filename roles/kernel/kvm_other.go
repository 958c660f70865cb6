//go:build !linux

package kernel

// accelerated reports false: QEMU emulates the processor.
func accelerated(string) bool { return false }
