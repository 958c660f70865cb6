package terminal

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// Ask returns a function that asks for a password on /dev/tty, without an echo. It returns nil when
// this process has no terminal.
func Ask() func(prompt string) (password string, err error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	tty.Close()
	return func(prompt string) (string, error) {
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
}
