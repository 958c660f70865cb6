package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// goos and goarch are Go's names of what uname(1) says. 32-bit programs run on
// what calls itself i386 (OpenBSD, FreeBSD) or i686 (Linux).
var (
	goos = map[string]string{"Linux": "linux", "OpenBSD": "openbsd", "FreeBSD": "freebsd"}

	goarch = map[string]string{"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64",
		"i386": "386", "i486": "386", "i586": "386", "i686": "386"}
)

// binary is the program for a system.
type binary struct {
	path string
	size int64
	sum  string // sha256, in hexadecimal
}

// executable is this program's file; tests have a smaller one sent.
var executable = os.Executable

// DistFolders returns the folders to search for binaries for other systems: $PFDIVERT_DIST, the
// folder of this program's file, and dist in it.
func DistFolders(getenv func(string) string) []string {
	var folders []string
	if d := getenv("PFDIVERT_DIST"); d != "" {
		folders = append(folders, d)
	}
	if exe, err := os.Executable(); err == nil {
		folders = append(folders, filepath.Dir(exe), filepath.Join(filepath.Dir(exe), "dist"))
	}
	return folders
}

// findBinary finds the program for a system: this program's own file if it is
// this one, else pfdivert-GOOS-GOARCH in one of the folders ("make dist").
func findBinary(system, arch string, folders []string) (*binary, error) {
	if system == runtime.GOOS && arch == runtime.GOARCH {
		exe, err := executable()
		if err != nil {
			return nil, fmt.Errorf("the own executable: %w", err)
		}
		return readBinary(exe)
	}
	name := "pfdivert-" + system + "-" + arch
	for _, d := range folders {
		b, err := readBinary(filepath.Join(d, name))
		if os.IsNotExist(err) {
			continue
		}
		return b, err
	}
	return nil, &Error{Reason: NoBinary, Text: fmt.Sprintf("there is no %s in %s", name, strings.Join(folders, ", ")),
		hint: "'make dist' builds it; PFDIVERT_DIST names another folder"}
}

// Program returns the file of this program for a system and an architecture, which are Go's names.
func Program(system, arch string, folders []string) (string, error) {
	b, err := findBinary(system, arch, folders)
	if err != nil {
		return "", err
	}
	return b.path, nil
}

func readBinary(path string) (*binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return nil, err
	}
	return &binary{path: path, size: n, sum: hex.EncodeToString(h.Sum(nil))}, nil
}

// binaryName is the program's name on a host to which it was copied.
const binaryName = "pfdivert"

// RemoveOwn removes the folder into which SSH copied this program for one run. It returns an error
// and removes nothing if the folder has a name that SSH does not make, or holds anything but the
// program. A missing folder is no error: the shell of the connection removes it too.
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
