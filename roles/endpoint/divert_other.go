//go:build !linux && !openbsd && !freebsd

package endpoint

const kernelMends = false

var divertAbilities abilities

func newDiverter(Spec) (diverter, error) { return nil, unsupported("divert sockets") }
