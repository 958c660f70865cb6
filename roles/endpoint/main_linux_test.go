package endpoint_test

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// loopbackUp brings lo up, which is down in a new namespace.
func loopbackUp(t testing.TB) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
}
