//go:build !linux

package socket_test

import (
	"os"
	"testing"
)

// loopbackUp skips a test that may not open raw sockets; lo0 is up.
func loopbackUp(t testing.TB) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}
