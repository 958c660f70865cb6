package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// binaryName is the program's name on a host to which it was copied.
const binaryName = "pfdivert"

// RemoveOwn is for an agent that was copied to its host for one run: it removes
// the folder of the copy. A folder that has another name than those that SSH
// makes, or anything in it but the program, is left alone and an error. That the
// folder is gone already is none: the shell of the connection removes it, too.
func RemoveOwn(dir string) error {
	if !filepath.IsAbs(dir) || !ownFolder.MatchString(filepath.Base(dir)) {
		return fmt.Errorf("remove %s: not a folder of this program", dir)
	}
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the copied program: %w", err)
	}
	if !info.IsDir() || info.Mode().Perm() != 0o700 {
		return fmt.Errorf("remove %s: not a folder of this program: %v", dir, info.Mode())
	}
	// What happens below stays in that folder, whatever takes its name.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("remove the copied program: %w", err)
	}
	defer root.Close()
	inside, err := root.Stat(".")
	if err != nil || !os.SameFile(info, inside) {
		return fmt.Errorf("remove %s: another folder took its place", dir)
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("remove the copied program: %w", err)
	}
	for _, e := range entries {
		if e.Name() != binaryName || !e.Type().IsRegular() {
			return fmt.Errorf("remove %s: there is %s, which is not this program", dir, e.Name())
		}
	}
	if err := root.Remove(binaryName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the copied program: %w", err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the copied program's folder: %w", err)
	}
	return nil
}
