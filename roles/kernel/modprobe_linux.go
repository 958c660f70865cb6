package kernel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// IsModprobe reports whether this program was started as modprobe(8) of an initramfs, which the
// kernel does when something asks for what a module has (request_module, kernel/module/kmod.c).
func IsModprobe(args []string) bool { return len(args) > 0 && args[0] == modprobePath }

// Modprobe loads modules of the initramfs: with -a all of them in their order, else those that the
// last argument names or has as an alias. What a module needs stands before it in the order.
func Modprobe(args []string, errs io.Writer) (status int) {
	text, err := os.ReadFile(orderPath)
	if err != nil {
		fmt.Fprintln(errs, "pfdivert: modprobe:", err)
		return 1
	}
	order := strings.Fields(string(text))
	if len(args) == 2 && args[1] == "-a" {
		for _, name := range order {
			if err := load(name); err != nil {
				fmt.Fprintf(errs, "pfdivert: modprobe: %s: %v\n", name, err)
				status = 1
			}
		}
		return status
	}
	aliases, err := os.ReadFile(aliasesPath)
	if err != nil {
		fmt.Fprintln(errs, "pfdivert: modprobe:", err)
		return 1
	}
	wanted := matching(args[len(args)-1], order, string(aliases))
	if len(wanted) == 0 {
		return 1 // as modprobe -q; the kernel tells the asker
	}
	for _, name := range wanted {
		if err := load(name); err != nil {
			fmt.Fprintf(errs, "pfdivert: modprobe: %s: %v\n", name, err)
			status = 1
		}
	}
	return status
}

// matching returns the modules that are asked for by a name or an alias.
func matching(asked string, order []string, aliases string) (names []string) {
	for _, name := range order {
		if name == underscored(asked) {
			return []string{name}
		}
	}
	for line := range strings.Lines(aliases) {
		pattern, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if ok, err := path.Match(pattern, asked); ok && err == nil {
			names = append(names, name)
		}
	}
	return names
}

// load loads a module. That it is there already, or that the kernel has it built in, is fine.
func load(name string) error {
	f, err := os.Open(moduleFile(filepath.Base(name)))
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) { // ENODEV: none of its devices is there
		return nil
	}
	return err
}
