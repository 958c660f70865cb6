package sshtest

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	"pfdivert/roles/lab/labtest"
)

// Secret is the password of all users of a world; secretHash is made by
// openssl passwd -6.
const (
	Secret     = "secret"
	secretHash = "$6$pfdivert$iRH6Alt2AElYf0vfCs3UTkL/ykuiRqC4lEOLFIa5N9wSWFuORtXeBkZD3UPnAPaH5/sZKt.0LA6fpAAmGWZ/g1"
)

// User is a user of a World.
type User struct{ name, shell, rc, noise, sudoers, doas string }

// users are a world's users besides root: the login shell, its rc file and that
// file's noise, the line in sudoers, the line in doas.conf.
var users = []User{
	{name: "bash", shell: "/bin/bash", rc: ".bashrc",
		noise: "echo Welcome to this host; echo error >&2; printf 'no line end'\n", sudoers: "bash ALL=(ALL) NOPASSWD: ALL"},
	{name: "csh", shell: "/bin/tcsh", rc: ".cshrc",
		noise: "echo 'Welcome to csh'\necho -n 'no line end'\nalias sh false\n", sudoers: "csh ALL=(ALL) NOPASSWD: ALL"},
	{name: "fish", shell: "/usr/bin/fish", rc: ".config/fish/config.fish", noise: "echo Welcome to fish\n",
		sudoers: "fish ALL=(ALL) NOPASSWD: ALL"},
	{name: "asked", shell: "/bin/sh", sudoers: "asked ALL=(ALL) ALL"},
	{name: "norights", shell: "/bin/sh"},
	{name: "requiretty", shell: "/bin/sh", sudoers: "Defaults:requiretty requiretty\nrequiretty ALL=(ALL) NOPASSWD: ALL"},
	{name: "doas", shell: "/bin/sh", doas: "permit nopass doas"},
	{name: "doasked", shell: "/bin/sh", doas: "permit doasked"},
	{name: "homeless", shell: "/bin/sh"},
	{name: "nologin", shell: "/usr/sbin/nologin"},
}

// GID is the group of all users; the first of them has the id firstUID.
const (
	GID      = 65534
	firstUID = 61001
)

// UID returns a user's id.
func UID(name string) (int, error) {
	for i, u := range users {
		if u.name == name {
			return firstUID + i, nil
		}
	}
	return 0, fmt.Errorf("no user %q", name)
}

// UserOf returns the user of a destination; root is none of the list.
func UserOf(destination string) *User {
	name, _, _ := strings.Cut(destination, "@")
	for i := range users {
		if users[i].name == name {
			return &users[i]
		}
	}
	return &User{shell: "/bin/sh"}
}

// Need is the function Need for the user's shell and what makes them root. Each world has
// folders of sudo's.
func (u *User) Need(t testing.TB, sudo string) {
	t.Helper()
	Need(t, u.shell, "/usr/bin/sudo")
	if strings.HasSuffix(sudo, "doas") {
		Need(t, "/usr/bin/doas")
	}
}

// Need skips the test where a program is missing; on CI that is a failure.
func Need(t testing.TB, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			labtest.Lacks(t, path.Base(p), err)
		}
	}
}

// NeedUsers skips the test where this process cannot become other users.
func NeedUsers(t testing.TB) {
	t.Helper()
	labtest.Need(t)
	if b, err := os.ReadFile("/proc/self/uid_map"); os.Geteuid() != 0 || err != nil ||
		!strings.Contains(string(b), "4294967295") {
		labtest.Lacks(t, "root", errors.New("only root can be several users"))
	}
}
