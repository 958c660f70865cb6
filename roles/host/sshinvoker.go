package host

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// Invoker is the user who made this program root by sudo or doas. ssh runs as
// that user: with their keys, configuration and known hosts, and without
// writing root's files into their home.
type Invoker struct {
	Name     string
	UID, GID uint32
	Groups   []uint32
	Home     string
}

// FindInvoker returns the invoker, nil when this process is not root or was not
// made so by sudo (SUDO_UID) or doas (DOAS_USER).
func FindInvoker(getenv func(string) string) (*Invoker, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	var u *user.User
	var err error
	switch uid, name := getenv("SUDO_UID"), getenv("DOAS_USER"); {
	case uid != "":
		// The passwd entry may be in a database that only libc can ask.
		if u, err = user.LookupId(uid); err != nil && getenv("SUDO_HOME") != "" {
			u, err = &user.User{Uid: uid, Gid: getenv("SUDO_GID"), Username: getenv("SUDO_USER"), HomeDir: getenv("SUDO_HOME")}, nil
		}
	case name != "":
		u, err = user.Lookup(name)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the user who called sudo: %w", err)
	}
	i := &Invoker{Name: u.Username, Home: u.HomeDir}
	for _, n := range []struct {
		to   *uint32
		from string
	}{{&i.UID, u.Uid}, {&i.GID, u.Gid}} {
		v, err := strconv.ParseUint(n.from, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("the user who called sudo: %w", err)
		}
		*n.to = uint32(v)
	}
	if i.UID == 0 {
		return nil, nil
	}
	groups, err := u.GroupIds()
	if err != nil {
		groups = nil // the groups matter only for reading keys; the own one does
	}
	for _, g := range groups {
		if v, err := strconv.ParseUint(g, 10, 32); err == nil {
			i.Groups = append(i.Groups, uint32(v))
		}
	}
	return i, nil
}

// apply has cmd run as the invoker.
func (i *Invoker) apply(cmd *exec.Cmd) {
	if i == nil {
		return
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: i.UID, Gid: i.GID, Groups: i.Groups}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "HOME", "USER", "LOGNAME", "MAIL":
		default:
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+i.Home, "USER="+i.Name, "LOGNAME="+i.Name)
	// The current folder may be one that only root may enter.
	cmd.Dir = "/"
}
