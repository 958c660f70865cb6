package roles

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"
)

var versionRole = Role{
	Name: "version", Summary: "say which program this is: version, Go version, system, sha256",
	Help: "Exit status: 0, or 2 when the executable can't be read.",
	run: func(_ context.Context, c *call) (int, error) {
		f := c.flags()
		if err := c.parse(f); err != nil {
			return exitError, err
		}
		if err := c.noArgs(f); err != nil {
			return exitError, err
		}
		sum, err := ownSum()
		if err != nil {
			return exitError, err
		}
		fmt.Fprintf(c.Out, "pfdivert %s\n%s\n%s/%s\nsha256 %s\n", c.version, runtime.Version(), runtime.GOOS,
			runtime.GOARCH, sum)
		return exitOK, nil
	},
}

// ownSum returns the sha256 of the running executable, in hexadecimal.
func ownSum() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("the own executable: %w", err)
	}
	file, err := os.Open(exe)
	if err != nil {
		return "", fmt.Errorf("the own executable: %w", err)
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", fmt.Errorf("the own executable: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
