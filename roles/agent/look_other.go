//go:build !linux

package agent

import gather "pfdivert/roles/evidence"

// routing does nothing: no mark and no table of its own route diverted packets.
func routing(*gather.Options) {}
