//go:build !freebsd

package agent

import (
	"context"
	"pfdivert/matrix/script"
)

// ownFilter is for FreeBSD, whose ipfw drops by default what the raw IPv6 cells send.
func (*checks) ownFilter(context.Context, *script.Setup) {}
