//go:build !linux

package agent

import "pfdivert/roles/evidence"

// routing does nothing: no mark and no table of its own route diverted packets.
func routing(*evidence.Options) {}
