package roles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"pfdivert/roles/terminal"
)

var installRole = Role{
	Name: "install", Usage: "DIR", Summary: "make symlinks to this program in DIR, one for each role",
	Help: `Links that point here already are left alone; any other file of such a name is
an error and nothing is overwritten.

Exit status: 0, or 2 when a link could not be made.`,
}

func init() { installRole.run = runInstall }

func runInstall(_ context.Context, c *call) (int, error) {
	f := c.flags()
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if f.NArg() != 1 {
		return exitError, terminal.WithHint(fmt.Errorf("install needs one folder, not %d", f.NArg()),
			"pfdivert install /usr/local/bin")
	}
	exe, err := os.Executable()
	if err != nil {
		return exitError, fmt.Errorf("the own executable: %w", err)
	}
	for _, r := range all() {
		if !r.Link {
			continue
		}
		link := filepath.Join(f.Arg(0), r.Name)
		if err := os.Symlink(exe, link); err != nil {
			if to, readErr := os.Readlink(link); readErr == nil && to == exe {
				continue
			}
			hint := "choose a folder of its own for the links: mkdir " + filepath.Join(f.Arg(0), "pfdivert")
			switch {
			case errors.Is(err, fs.ErrNotExist):
				hint = "mkdir -p " + f.Arg(0)
			case errors.Is(err, fs.ErrPermission):
				hint = "sudo " + exe + " install " + f.Arg(0)
			}
			return exitError, terminal.WithHint(err, hint)
		}
		fmt.Fprintln(c.Out, link)
	}
	return exitOK, nil
}
