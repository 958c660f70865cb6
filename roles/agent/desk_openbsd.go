package agent

import (
	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
)

// OpenDesk shows this host's pf.
func OpenDesk() (pfconf.Desk, error) { return pf.OpenDesk(nil, false), nil }
