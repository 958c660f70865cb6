//go:build !linux

package inject

import (
	"context"
	"pfdivert/matrix/injection"
	"runtime"
)

// Do makes the change on the host of the process. The driver of the packet filter must have made
// its own before.
func (h BrokenHost) Do(ctx context.Context, s injection.Action) error {
	return h.byPrograms(ctx, runtime.GOOS, s)
}
