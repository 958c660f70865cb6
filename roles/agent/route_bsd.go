//go:build openbsd || freebsd || darwin

package agent

import "pfdivert/pfconf/program"

// hostRoutes is this host's routing table.
var hostRoutes routes = routeTool{program.Exec}
