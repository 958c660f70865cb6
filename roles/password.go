package roles

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"pfdivert/roles/host"
)

// terminalAsk returns the function that asks for a password on the terminal, nil
// when this process has none.
func terminalAsk() host.Ask {
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
