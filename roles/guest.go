package roles

import (
	"context"
	"errors"

	"pfdivert/roles/kernel"
)

var guestRole = Role{
	Name: kernel.GuestRole, Hidden: true, Summary: "be the two hosts of a lab in a virtual machine that 'run -kernel' started",
	Help: "Exit status: 0 when both agents have ended, 2 otherwise.",
	run: func(context.Context, *call) (int, error) {
		return exitError, errors.New("a guest runs Linux")
	},
}
