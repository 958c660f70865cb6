package host

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
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

// DistFolders are the folders in which binaries for other systems are looked
// for: $PFDIVERT_DIST, next to this program's file, dist there.
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
