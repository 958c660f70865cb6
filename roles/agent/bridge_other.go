//go:build !linux

package agent

import (
	"context"
	"fmt"
	"runtime"

	"pfdivert/matrix/script"
	"pfdivert/roles/socket"
)

func bridgeGoes(context.Context, script.BridgeGoes) (string, error) {
	return "", fmt.Errorf("queue what is bridged: %w (%s)", socket.ErrUnsupported, runtime.GOOS)
}

func (*agent) middlebox(context.Context, *session, script.Middlebox) (*script.Middle, error) {
	return nil, fmt.Errorf("divert between a client and a server: %w (%s)", socket.ErrUnsupported, runtime.GOOS)
}
