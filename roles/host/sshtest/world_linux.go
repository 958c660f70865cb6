package sshtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// World is what an sshd is started with.
type World struct {
	Port    int
	UserKey string // public
	HostKey string // the private key's file
	// Mounts are options of tmpfs for folders that get one.
	Mounts map[string]string
	// Without are commands that the host lacks.
	Without []string
	// Config is more of sshd_config.
	Config string
	// OwnNetwork gives it a network namespace, in which sshd has port 22 on all
	// addresses. All interfaces are down.
	OwnNetwork bool
	// Run is a command to run in place of sshd, as the user As, or root. The test
	// program is there as Program.
	Run []string
	As  string
	// Opaque has the host's kernel ignore that sockets are made transparent: targets fail there.
	Opaque bool
	// Uname is what uname -s and -m say, if they should say something else.
	Uname []string
}

// enter becomes the sshd, in the new mount namespace.
func enter(settings string) error {
	var w World
	if err := json.Unmarshal([]byte(settings), &w); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	var hostKey []byte
	if w.HostKey != "" {
		var err error
		if hostKey, err = os.ReadFile(w.HostKey); err != nil {
			return err
		}
	}
	mounts := map[string]string{"/run": "mode=755", "/home": "mode=755", "/root": "mode=700", "/tmp": "mode=1777",
		"/var/tmp": "mode=1777", "/var/lib/sudo": "mode=700"}
	for dir, o := range w.Mounts {
		mounts[dir] = o
	}
	mount := func(dir string) error {
		var flags uintptr
		var data []string
		for _, o := range strings.Split(mounts[dir], ",") {
			if o == "noexec" {
				flags |= unix.MS_NOEXEC
			} else {
				data = append(data, o)
			}
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", flags, strings.Join(data, ",")); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
		return nil
	}
	if err := mount("/run"); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", "/etc", "/run/etc").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := unix.Mount("/run/etc", "/etc", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for dir := range mounts {
		if dir != "/run" {
			if err := mount(dir); err != nil {
				return err
			}
		}
	}
	if err := w.write(hostKey); err != nil {
		return err
	}
	for _, name := range w.Without {
		p, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if err := unix.Mount("/run/nothing", p, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if len(w.Uname) > 0 {
		script := fmt.Sprintf("#!/bin/sh\ncase $1 in -s) echo %s;; -m) echo %s;; esac\n", w.Uname[0], w.Uname[1])
		if err := os.WriteFile("/run/uname", []byte(script), 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/run/uname", "/usr/bin/uname", "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if len(w.Run) > 0 {
		return w.run()
	}
	if w.Opaque {
		if err := opaque(); err != nil {
			return err
		}
	}
	return syscall.Exec("/usr/sbin/sshd", []string{"/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/test_config"},
		os.Environ())
}

// run becomes the command, as a user.
func (w *World) run() error {
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(Program, b, 0o755)
	}
	if err != nil {
		return err
	}
	if w.As != "" {
		uid, err := UID(w.As)
		if err != nil {
			return err
		}
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(GID), syscall.Setuid(uid)); err != nil {
			return err
		}
	}
	return syscall.Exec(w.Run[0], w.Run, append(os.Environ(), "USER="+w.As))
}

// write fills the namespace's own /etc and /home.
func (w *World) write(hostKey []byte) error {
	passwd, shadow := "", ""
	sudoers := "Defaults env_reset, use_pty, lecture=always\nroot ALL=(ALL:ALL) ALL\n"
	doas := ""
	listen := "127.0.0.1"
	if w.OwnNetwork {
		listen = "0.0.0.0"
	}
	for i, u := range users {
		home := "/home/" + u.name
		uid := firstUID + i
		passwd += fmt.Sprintf("%s:x:%d:%d::%s:%s\n", u.name, uid, GID, home, u.shell)
		shadow += fmt.Sprintf("%s:%s:19000:0:99999:7:::\n", u.name, secretHash)
		if u.sudoers != "" {
			sudoers += u.sudoers + "\n"
		}
		if u.doas != "" {
			doas += u.doas + "\n"
		}
		if u.name == "homeless" {
			continue
		}
		if err := os.Mkdir(home, 0o755); err != nil {
			return err
		}
		if err := os.Chown(home, uid, GID); err != nil {
			return err
		}
		if u.rc != "" {
			rc := filepath.Join(home, u.rc)
			if err := os.MkdirAll(filepath.Dir(rc), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(rc, []byte(u.noise), 0o644); err != nil {
				return err
			}
		}
	}
	for _, dir := range []string{"/run/sshd", "/run/sudo"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		mode os.FileMode
		text string
		more bool
	}{
		{"/etc/passwd", 0o644, passwd, true},
		{"/etc/shadow", 0o640, shadow, true},
		{"/etc/sudoers", 0o440, sudoers, false},
		{"/etc/doas.conf", 0o600, doas, false},
		{"/etc/ssh/test_host_key", 0o600, string(hostKey), false},
		{"/etc/ssh/test_keys", 0o644, w.UserKey, false},
		{"/run/nothing", 0o644, "", false},
		{"/etc/ssh/test_config", 0o644, fmt.Sprintf(`Port %d
ListenAddress %s
HostKey /etc/ssh/test_host_key
AuthorizedKeysFile /etc/ssh/test_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
LogLevel ERROR
Banner /etc/issue.net
%s
`, w.Port, listen, w.Config), false},
	} {
		flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		if f.more {
			flags = os.O_WRONLY | os.O_APPEND
		}
		file, err := os.OpenFile(f.name, flags, f.mode)
		if err != nil {
			return err
		}
		if err := file.Chmod(f.mode); err != nil {
			return err
		}
		if _, err := file.WriteString(f.text); err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	return nil
}
