package gather

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// inOwnTable does nothing: a routing socket asks the routing table (FIB) of its process.
func inOwnTable([]byte) error { return nil }

// routeFlags are the names that route(8) has for flags.
var routeFlags = map[int]string{
	unix.RTF_UP: "UP", unix.RTF_GATEWAY: "GATEWAY", unix.RTF_HOST: "HOST", unix.RTF_REJECT: "REJECT",
	unix.RTF_DYNAMIC:  "DYNAMIC",
	unix.RTF_MODIFIED: "MODIFIED", unix.RTF_DONE: "DONE", unix.RTF_XRESOLVE: "XRESOLVE", unix.RTF_STATIC: "STATIC",
	unix.RTF_BLACKHOLE: "BLACKHOLE",
	unix.RTF_PROTO2:    "PROTO2", unix.RTF_PROTO1: "PROTO1", unix.RTF_PROTO3: "PROTO3", unix.RTF_PINNED: "PINNED",
	unix.RTF_LOCAL:     "LOCAL",
	unix.RTF_BROADCAST: "BROADCAST", unix.RTF_MULTICAST: "MULTICAST", unix.RTF_STICKY: "STICKY",
}

var layout = freebsdLayout(strconv.IntSize / 8)
