package agent

import (
	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
)

// OpenDesk shows this host's ipfw, which is the filter that this program uses here.
func OpenDesk() (pfconf.Desk, error) { return ipfw.OpenDesk(nil), nil }
