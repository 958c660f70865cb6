package host

import "pfdivert/roles/lab"

// LabOptions say how the agents of a lab are started.
type LabOptions struct {
	// Args are the arguments that make this program's own file an agent of
	// a lab ("agent", "-lab"). One more is put behind them: the settings, which
	// the agent hands to StartRemoteAgent.
	Args []string
	// Config is the lab to build.
	Config lab.Config
}

// labSettings are what the orchestrator tells LOCAL's agent, as JSON in its
// arguments.
type labSettings struct {
	lab.Config
	// CPU is where to pin REMOTE's agent, if Pin says so.
	CPU int  `json:"cpu,omitempty"`
	Pin bool `json:"pin,omitempty"`
}

// The descriptors in LOCAL's agent that are REMOTE's standard input, output and
// error.
const (
	remoteStdin = 3 + iota
	remoteStdout
	remoteStderr
)
