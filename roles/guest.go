package roles

import (
	"context"
	"errors"

	"pfdivert/roles/kernel"
)

var guestRole = Role{
	Name: kernel.GuestRole, Hidden: true, Summary: "be the two hosts of a lab, or run a role, in a virtual machine of -kernel",
	Help: "Exit status: 0 when both agents have ended, 2 otherwise; or the role's.",
	run: func(context.Context, *call) (int, error) {
		return exitError, errors.New("a guest runs Linux")
	},
}
