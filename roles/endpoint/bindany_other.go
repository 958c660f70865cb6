//go:build !linux && !openbsd && !freebsd

package endpoint

import (
	"pfdivert/matrix/script"
	"runtime"
)

func setBindany(int, int) error { return unsupported("binding a foreign address") }

func markDiverted(int, int) error { return unsupported("diverting to a socket") }

func bindForeignRaw(int, script.Ends) (bool, error) { return false, nil }

// rawLengthIsPayload: on macOS the length in the IPv4 header that a raw socket
// delivers is in host order and without the header (ip(4)), of no use here.
const rawLengthIsPayload = runtime.GOOS == "darwin"
