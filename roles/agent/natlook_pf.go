//go:build openbsd || freebsd

package agent

import (
	"pfdivert/pfconf"
	"pfdivert/pfconf/pf"
)

func natlook(q pfconf.NATQuery) (pfconf.NATAnswer, error) { return pf.Natlook(q) }
