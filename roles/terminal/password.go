package terminal

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Ask returns a function that asks for a password on /dev/tty, without an echo. It returns nil when
// this process has no terminal. When ctx ends, the function returns its cause; Keep puts the echo
// back then.
func Ask() func(ctx context.Context, prompt string) (password string, err error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	tty.Close()
	type answer struct {
		password string
		err      error
	}
	return func(ctx context.Context, prompt string) (string, error) {
		answered := make(chan answer, 1)
		go func() { // a read of a terminal can't be broken off
			password, err := ask(prompt)
			answered <- answer{password, err}
		}()
		select {
		case a := <-answered:
			return a.password, a.err
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

func ask(prompt string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("ask for a password: %w", err)
	}
	defer tty.Close()
	fmt.Fprint(tty, prompt)
	password, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	if err != nil {
		return "", fmt.Errorf("ask for a password: %w", err)
	}
	return strings.TrimRight(string(password), "\r\n"), nil
}

// Keep returns a function that gives the terminal the settings that it has now: this process, ssh
// or sudo may have been ended while it asked for a password. In the background it leaves them to
// the process in the foreground.
func Keep() (restore func()) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return func() {}
	}
	fd := int(tty.Fd())
	was, err := term.GetState(fd)
	return func() {
		defer tty.Close()
		is, errIs := term.GetState(fd)
		group, errGroup := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		if err != nil || errIs != nil || errGroup != nil || *is == *was || group != unix.Getpgrp() {
			return
		}
		fmt.Fprintln(tty) // behind the prompt
		_ = term.Restore(fd, was)
	}
}
