package roles

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"pfdivert/matrix/faults"
)

// keepFault is a shell on REMOTE of a lab that has been broken and played in. The lab
// stands until the shell ends.
func (c *call) keepFault(p *pair, f faults.Fault) error {
	remote, local := p.hosts.Remote.Hello.PID, p.hosts.Local.Hello.PID
	enter := []string{"nsenter", "--target", strconv.Itoa(remote), "--net"}
	if os.Geteuid() != 0 {
		if sudo := strings.Fields(c.Getenv("SUDO")); len(sudo) > 0 {
			enter = append(sudo, enter...)
		} else {
			enter = append(enter, "--user", "--preserve-credentials")
		}
	}
	shell := c.Getenv("SHELL")
	if shell == "" {
		shell = "/bin/sh"
	}
	fmt.Fprintf(c.Err, `Broken: %s.
This is REMOTE, with the rules of the targets; exit ends the lab. A command on LOCAL: nsenter --net=/proc/%d/ns/net CMD
Look at: ip rule; ip route show table all; nft list ruleset; nstat -az; ip route get FAKE (on LOCAL)
`, f.About, local)
	// A terminal's interrupts are for the shell.
	cmd := exec.CommandContext(context.Background(), enter[0], append(enter[1:], shell)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.In, c.Out, c.Err
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return hinted{err, "nsenter is part of util-linux"}
	case errors.As(err, &exit):
		return nil // that of its last command
	}
	return err
}
