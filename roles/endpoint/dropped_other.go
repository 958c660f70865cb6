//go:build !linux && !openbsd && !freebsd

package endpoint

import (
	"context"
	"fmt"
	"pfdivert/matrix/script"
	"runtime"
)

// Drops is for systems that count what divert sockets drop.
func Drops(context.Context, bool, uint16) (script.Dropped, error) {
	return script.Dropped{}, fmt.Errorf("counters of divert sockets: %w (%s)", ErrUnsupported, runtime.GOOS)
}
