package agent

import (
	"context"

	"pfdivert/pfconf"
)

// OpenDesk shows this host's ipfw, and its pf where that is switched on.
func OpenDesk() (pfconf.Desk, error) { return openDesks(context.Background(), nil) }
