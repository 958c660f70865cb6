package host

import "pfdivert/roles/lab"

// LabOptions are how Lab starts the two agents.
type LabOptions struct {
	// Args are the arguments that make this program's own file an agent of
	// a lab ("agent", "-lab"). One more is put behind them: the settings, which
	// the agent hands to StartRemoteAgent.
	Args []string
	// Config is the lab to build.
	Config lab.Config
	// Sudo is what to put before the program to become root ("sudo", "-n"),
	// where the system gives no one else a namespace. Empty to do without. The
	// agents then share the orchestrator's job on a terminal and should ignore
	// its interrupts.
	Sudo []string
}

// labSettings are what the orchestrator tells LOCAL's agent, as JSON in its
// arguments.
type labSettings struct {
	lab.Config
	// Pin has the agents pinned to these CPUs.
	Pin       bool `json:"pin,omitempty"`
	LocalCPU  int  `json:"localCPU,omitempty"`
	RemoteCPU int  `json:"remoteCPU,omitempty"`
	// Pipes are the descriptors that LOCAL's agent has for REMOTE's standard
	// input, output and error.
	Pipes [3]int `json:"pipes"`
	// Enter is set where LOCAL's agent was not started in its namespace but must
	// enter one itself.
	Enter *enterSettings `json:"enter,omitempty"`
}

// enterSettings says where REMOTE's pipes are: sudo closes what it does not
// know, but root may open another process's descriptors (proc_pid_fd(5)).
type enterSettings struct {
	PID int    `json:"pid"`
	FDs [3]int `json:"fds"`
}
