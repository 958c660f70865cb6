//go:build !linux && !openbsd && !freebsd

package endpoint

const kernelMends = false

func newDiverter(Spec) (diverter, error) { return nil, unsupported("divert sockets") }
