//go:build !linux

package kernel

import (
	"errors"
	"io"
	"os"
)

// GuestRole is the first argument by which init starts this program for the lab of a Guest.
const GuestRole = "guest"

// IsInit reports false: this program is init of a Linux kernel only.
func IsInit() bool { return false }

// Init does nothing.
func Init(func(string) bool) {}

// IsModprobe reports false, see IsInit.
func IsModprobe([]string) bool { return false }

// Modprobe fails, see IsInit.
func Modprobe([]string, io.Writer) int { return 1 }

// Port fails, see IsInit.
func Port(string) (*os.File, error) {
	return nil, errors.New("this program is init of a Linux kernel only")
}
