//go:build !linux && !openbsd && !freebsd

package evidence

import (
	"context"
	"fmt"
	"runtime"
)

// LookAround is for other systems.
func LookAround(context.Context) (*Survey, error) {
	return nil, fmt.Errorf("how %s diverts is not known here: only hosts of Linux, OpenBSD and FreeBSD can be looked at", runtime.GOOS)
}
