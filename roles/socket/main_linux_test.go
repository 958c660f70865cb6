package socket_test

import (
	"testing"

	"github.com/vishvananda/netlink"

	"pfdivert/roles/lab/labtest"
)

// loopbackUp brings lo up, which is down in a new namespace.
func loopbackUp(t testing.TB) {
	t.Helper()
	labtest.Need(t)
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
}
