// Package script is the language in which a test case is written: the steps that a host carries
// out, the sockets that it opens for them, what it answers, and what a run needs of a host (Host).
// All are values; nothing here makes a system call.
package script

import "time"

// CellTimeout is how long a cell may take, and a step of it may wait for what must come. It is the
// last resort: nothing in a cell waits by the clock, so only a host that hangs can take so long.
// All cells wait for the same loads of pf: on a busy emulated machine a pfctl takes a second, and a
// run 60 of them one after the other.
const CellTimeout = 2 * time.Minute

// Script is a list of steps that a host carries out in order for one cell. A step that fails does
// not end the script; later steps of its socket, except Rest and Close, are skipped and say so.
type Script struct {
	Cell  string
	Steps []Step
	// Hold: when a step did not find what it wants, the script ends before the next one that
	// closes or removes something. It and all behind it have the fault CodeHeld, and
	// End is not done.
	Hold bool
	// End closes the cell's endpoints after the last step. Their log stays for
	// a while (see Log).
	End bool
}
