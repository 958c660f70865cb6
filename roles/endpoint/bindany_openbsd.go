package endpoint

import (
	"pfdivert/matrix/script"

	"golang.org/x/sys/unix"
)

// setBindany lets the socket bind an address that is not the host's own
// (SO_BINDANY, getsockopt(2); root only).
func setBindany(fd, _ int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDANY, 1)
}

// markDiverted has nothing to do: pf delivers to any socket.
func markDiverted(int, int) error { return nil }

func bindForeignRaw(int, script.Ends) (bool, error) { return false, nil }

// rawLengthIsPayload: see bindany_other.go.
const rawLengthIsPayload = false
