package roles

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"pfdivert/matrix/faults"
	"pfdivert/pfconf"
)

// keepFault is a shell on REMOTE of a lab that has been broken and played in. The lab
// stands until the shell ends.
func (c *call) keepFault(p *pair, f faults.Fault) error {
	enter, local, look := p.byHand()
	if os.Geteuid() != 0 {
		if sudo := strings.Fields(c.Getenv("SUDO")); len(sudo) > 0 {
			enter = append(sudo, enter...)
		} else { // on Linux: elsewhere it takes root
			enter = append(enter, "--user", "--preserve-credentials")
		}
	}
	shell := c.Getenv("SHELL")
	if shell == "" {
		shell = "/bin/sh"
	}
	a := p.options.Families[pfconf.Inet]
	fmt.Fprintf(c.Err, `Broken: %s.
This is a shell on REMOTE, %v, with the rules that were loaded last. exit ends the lab.
LOCAL is %v, FAKE %v. A command on LOCAL: %s CMD
Look at: %s
Send something to FAKE: %[5]s %[7]s client -proto udp -bind %[3]v %[8]v:4000
`, f.About, a.Remote, a.Local, a.Fakes, local, look, ownPath(), a.Fakes.Addr().Next())
	// A terminal's interrupts are for the shell.
	cmd := exec.CommandContext(context.Background(), enter[0], append(enter[1:], shell)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.In, c.Out, c.Err
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound) && hasNamespaces:
		return hinted{err, "nsenter is part of util-linux"}
	case errors.As(err, &exit):
		return nil // that of its last command
	}
	return err
}

// ownPath is how a shell starts this one.
func ownPath() string {
	if path, err := os.Executable(); err == nil {
		return path
	}
	return os.Args[0]
}

// byHand returns what stands before a command on REMOTE, and before one on LOCAL, and what is
// worth a look there.
func (p *pair) byHand() (remote []string, local, look string) {
	if p.builder == nil {
		return []string{"nsenter", "--target", strconv.Itoa(p.hosts.Remote.Hello.PID), "--net"},
			fmt.Sprintf("nsenter --net=/proc/%d/ns/net", p.hosts.Local.Hello.PID),
			"ip rule; ip route show table all; nft list ruleset; nstat -az; ip route get FAKE (on LOCAL)"
	}
	look = "pfctl -a regress -vsr; pfctl -ss; netstat -s -p divert"
	if p.hosts.Remote.Hello.GOOS == "freebsd" {
		look = "ipfw -S show; sysctl net.inet.ip.fw; netstat -rn"
	}
	lab := p.builder.lab
	return slices.Clone(lab.Remote.Command()), strings.Join(lab.Local.Command(), " "), look
}
