//go:build !linux && !openbsd

package endpoint

import (
	"context"
	"fmt"
	"runtime"
)

// Drops is for systems that count what divert sockets drop.
func Drops(context.Context, bool, uint16) (Dropped, error) {
	return Dropped{}, fmt.Errorf("counters of divert sockets: %w (%s)", ErrUnsupported, runtime.GOOS)
}
