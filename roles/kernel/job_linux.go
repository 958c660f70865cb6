package kernel

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
)

// JobArguments returns the arguments of the job that Run has for this guest; ok is false for a lab.
func JobArguments() (words []string, ok bool) {
	text, err := os.ReadFile(argumentsPath)
	return strings.Split(string(text), "\x00"), err == nil
}

// DoJob does a job in the guest, over its ports, with more in its environment, and returns the
// program's exit status.
func DoJob(words, env []string, out, output, errs *os.File) (status int, err error) {
	if _, err := out.Write([]byte{jobBegins}); err != nil {
		return 0, err
	}
	cmd := exec.Command("/proc/self/exe", words...)
	cmd.Args[0] = "pfdivert"
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Run(); cmd.ProcessState == nil {
		return 0, err
	}
	text, err := os.ReadFile(OutputPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	_ = output.Fd() // which has a write wait until QEMU has the bytes; then the machine may end
	_, err = output.Write(text)
	return cmd.ProcessState.ExitCode(), err
}
