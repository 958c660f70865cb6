package gather

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// inOwnTable has a routing message ask the routing table of this process: rtm_tableid of struct
// rt_msghdr (net/route.h), which is the routing domain's.
func inOwnTable(message []byte) error {
	n, err := unix.Getrtable()
	if err != nil {
		return os.NewSyscallError("getrtable", err)
	}
	const tableAt = 8
	binary.NativeEndian.PutUint16(message[tableAt:], uint16(n))
	return nil
}

// routeFlags are the names that route(8) has for flags.
var routeFlags = map[int]string{
	unix.RTF_UP: "UP", unix.RTF_GATEWAY: "GATEWAY", unix.RTF_HOST: "HOST", unix.RTF_REJECT: "REJECT",
	unix.RTF_DYNAMIC:  "DYNAMIC",
	unix.RTF_MODIFIED: "MODIFIED", unix.RTF_DONE: "DONE", unix.RTF_CLONING: "CLONING", unix.RTF_MULTICAST: "MULTICAST",
	unix.RTF_LLINFO: "LLINFO", unix.RTF_STATIC: "STATIC", unix.RTF_BLACKHOLE: "BLACKHOLE", unix.RTF_PROTO3: "PROTO3",
	unix.RTF_PROTO2: "PROTO2", unix.RTF_PROTO1: "PROTO1", unix.RTF_CLONED: "CLONED", unix.RTF_CACHED: "CACHED",
	unix.RTF_MPATH: "MPATH",
	unix.RTF_MPLS:  "MPLS", unix.RTF_LOCAL: "LOCAL", unix.RTF_BROADCAST: "BROADCAST", unix.RTF_CONNECTED: "CONNECTED",
}

var layout = openbsdLayout
