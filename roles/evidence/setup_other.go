//go:build !linux

package evidence

import (
	"context"
	"fmt"
	"runtime"
)

// LookAround is for Linux alone.
func LookAround(context.Context) (*Survey, error) {
	return nil, fmt.Errorf("how %s diverts is not known here: only Linux hosts can be looked at", runtime.GOOS)
}
