//go:build !linux

package agent

import (
	"context"
	"errors"

	"pfdivert/matrix/evidence"
)

// tracesPackets: no kernel but Linux's tells which rules a packet meets.
const tracesPackets = false

type watch struct{}

var errNoTrace = errors.New("the kernel can't trace packets")

func (*watch) begin(*EvidenceRequest) error { return errNoTrace }

func (*watch) end(context.Context, *EvidenceRequest) ([]evidence.Traced, error) {
	return nil, errNoTrace
}
