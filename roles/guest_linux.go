package roles

import (
	"context"
	"os"

	"pfdivert/roles/host"
	"pfdivert/roles/kernel"
	"pfdivert/roles/lab"
	"pfdivert/roles/terminal"
	"pfdivert/roles/twin"
)

func init() { guestRole.run = runGuest }

// runGuest builds a lab whose agents are reached through the guest's ports, or does what else this
// program is asked for there.
func runGuest(_ context.Context, c *call) (int, error) {
	f := c.flags()
	single := f.Bool("single", false, "one LOCAL and one FAKE address per family")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if err := c.noArgs(f); err != nil {
		return exitError, err
	}
	var ports [3]*os.File
	for i, name := range []string{kernel.LocalPort, kernel.RemotePort, kernel.ErrorPort} {
		var err error
		if ports[i], err = kernel.Port(name); err != nil {
			return exitError, err
		}
		defer ports[i].Close()
	}
	local, remote, errs := ports[0], ports[1], ports[2]
	if words, ok := kernel.JobArguments(); ok {
		status, err := kernel.DoJob(words, []string{twin.EnclosedEnv + "=host"}, local, remote, errs)
		if err != nil {
			terminal.PrintError(errs, err)
			return exitError, err
		}
		return status, nil
	}
	options := host.LabOptions{Args: []string{"agent", "-lab"}, Config: lab.Config{Single: *single}}
	err := host.LabOn(options, [3]*os.File{local, local, errs}, [3]*os.File{remote, remote, errs})
	if err != nil {
		terminal.PrintError(errs, err)
		return exitError, err
	}
	return exitOK, nil
}
