//go:build openbsd || freebsd || darwin

package agent

import "pfdivert/pfconf/pf"

// hostRoutes is this host's routing table.
var hostRoutes routes = routeTool{pf.Exec}
