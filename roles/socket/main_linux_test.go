package socket_test

import (
	"testing"

	"pfdivert/pfconf/rtnetlink"
	"pfdivert/roles/lab/labtest"
)

// loopbackUp brings lo up, which is down in a new namespace.
func loopbackUp(t testing.TB) {
	t.Helper()
	labtest.Need(t)
	must(t, rtnetlink.With(func(c *rtnetlink.Conn) error {
		lo, err := c.Link("lo")
		if err != nil {
			return err
		}
		return c.SetUp(lo.Index)
	}))
}
