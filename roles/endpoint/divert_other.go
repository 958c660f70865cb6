//go:build !linux && !openbsd && !freebsd

package endpoint

import "pfdivert/matrix/script"

const kernelMends = false

var divertAbilities abilities

func newDiverter(script.Divert) (diverter, error) { return nil, unsupported("divert sockets") }
