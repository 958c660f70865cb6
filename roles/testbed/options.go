// Package testbed reaches the two hosts of a run, LOCAL and REMOTE, and the agents on them: in a
// lab on this machine, or over ssh, as the environment and a hosts file say.
package testbed

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"time"
)

// Options are what a role wants of the hosts. Those that a role has no flag for stay zero.
type Options struct {
	// Getenv is the environment: REMOTE_SSH, the addresses, SSH_OPTIONS, REMOTE's SUDO.
	Getenv func(string) string
	// Notices gets a line for what an agent says unasked. It is written to by several goroutines.
	Notices io.Writer
	// Doing, unless it is nil, is told what is done to reach the hosts. Several goroutines call it.
	Doing     func(what string)
	Sudo      string        // makes root on LOCAL
	HostsFile string        // "" for the host of the environment, or a lab
	Kernel    string        // the image of a kernel to boot as host, "" for none
	Modules   string        // a folder with the kernel's modules
	Memory    int           // of its machine, in MB
	CPUs      int           // of its machine
	Filter    string        // an engine of Linux's packet filter, FilterAll, or "" for the system's own
	Beyond    bool          // look at hosts beyond REMOTE, also when no target needs them
	Single    bool          // one LOCAL and one FAKE address per family in a lab
	Keep      bool          // leave the program on REMOTE
	Domain    int           // REMOTE's routing domain
	Router    bool          // give REMOTE of a BSD lab more networks, for the targets that need them
	PF        bool          // switch on the pf of a lab on FreeBSD, for the targets that are about it
	Wait      time.Duration // for another run that uses the host
}

// doing tells what is done.
func (o Options) doing(what string) {
	if o.Doing != nil {
		o.Doing(what)
	}
}

// Heartbeat is how often the orchestrator shows an agent that it lives; an agent that has seen
// nothing for AgentPatience undoes what it did and ends.
const (
	Heartbeat     = 5 * time.Second
	AgentPatience = 4 * Heartbeat
)

// LabHeartbeat and LabAgentPatience are the same in a lab. Its orchestrator and its agents are on
// one machine, where the end of one ends the others' input at once; a scheduler that prefers those
// who seldom ran (FreeBSD's ULE) may keep the one that built the lab waiting for as long as the
// others are busy, and a lab in an emulated machine is slow.
const (
	LabHeartbeat     = 30 * time.Second
	LabAgentPatience = 4 * LabHeartbeat
)

// WhoRuns returns who runs this program, and where, for others who have to wait for it. What is not
// known is left out.
func WhoRuns(getenv func(string) string) string {
	name := getenv("SUDO_USER")
	if u, err := user.Current(); err == nil && name == "" {
		name = u.Username
	}
	host, _ := os.Hostname()
	return fmt.Sprintf("%s@%s, process %d", name, host, os.Getpid())
}
