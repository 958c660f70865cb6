package kernel

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// IsModprobe reports whether this program was started as modprobe(8) of an initramfs, which the
// kernel does when something asks for what a module has (request_module, kernel/module/kmod.c).
func IsModprobe(args []string) bool { return len(args) > 0 && args[0] == modprobePath }

// Modprobe loads modules of the initramfs: with -a those that init loads, else those that the
// last argument names or has as an alias.
func Modprobe(args []string, errs io.Writer) (status int) {
	list := aliasesPath
	all := len(args) == 2 && args[1] == "-a"
	if all {
		list = orderPath
	}
	text, err := os.ReadFile(list)
	if err != nil {
		fmt.Fprintln(errs, "pfdivert: modprobe:", err)
		return 1
	}
	wanted := strings.Fields(string(text))
	if !all {
		wanted = matching(args[len(args)-1], string(text))
	}
	if len(wanted) == 0 && !all {
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

// matching returns the modules that are asked for by a name or an alias. An alias is a pattern.
func matching(asked, aliases string) (names []string) {
	for line := range strings.Lines(aliases) {
		pattern, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == underscored(asked) {
			return []string{name}
		}
		if ok, err := path.Match(pattern, asked); ok && err == nil {
			names = append(names, name)
		}
	}
	return names
}

// load loads a module, and before it what it needs. That it is there already, or that the kernel
// has it built in, is fine.
func load(name string) error {
	if _, err := os.Stat("/sys/module/" + name + "/initstate"); err == nil {
		return nil
	}
	m, err := readModule(name, moduleFile(filepath.Base(name)))
	if err != nil {
		return err
	}
	for _, other := range slices.Concat(m.pre, m.depends) {
		if err := load(underscored(other)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", other, err)
		}
	}
	err = unix.InitModule(m.Data, "")
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) { // ENODEV: none of its devices is there
		return nil
	}
	return err
}
