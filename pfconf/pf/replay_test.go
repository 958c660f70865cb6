package pf

import (
	"testing"

	"pfdivert/pfconf/program/replaytest"
)

// play answers pfctl with a transcript in testdata/replay.
func play(t *testing.T, name string) Runner {
	t.Helper()
	return replaytest.Play(t, "testdata/replay/"+name+".txt")
}
