package lab

import "io"

// RunOptions say what to run in a lab.
type RunOptions struct {
	Config
	// Host is where Command runs.
	Host HostName `json:"host"`
	// Command is the program and its arguments; the user's shell if empty.
	Command []string `json:"command,omitempty"`
	// Quiet leaves out the description of the lab.
	Quiet bool `json:"quiet,omitempty"`
}

// Stdio is what a command reads and writes.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Marker is in the environment of commands in a lab: nothing that they change outlives it.
const Marker = "PFDIVERT_LAB"

// InnerArgument is the role's first argument when Run has started this program
// again: the role then hands all arguments to Inner and exits with its status.
const InnerArgument = "-inner"
