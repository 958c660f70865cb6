package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Tree is a folder of kernel modules: /lib/modules/RELEASE, or any folder that has one or more
// below it, or a kernel's build folder.
type Tree struct {
	dir     string
	files   map[string]string // by module name
	builtin map[string]bool
}

// Module is a kernel module, not compressed.
type Module struct {
	Name    string
	Data    []byte
	depends []string
	pre     []string // to be loaded before it where they are there
	post    []string
	aliases []string
	release string // of the kernel that it was made for; empty where it does not tell
}

// maxModule bounds a module, in bytes. nf_tables has 500 KB, and 8 MB with debug information.
const maxModule = 64 << 20

const modulesCure = "-modules names the folder that holds lib/modules/RELEASE, or that one; " +
	"leave it out for a kernel that has all built in"

// OpenTree looks which modules there are in dir. Where it holds those of several kernels, release
// chooses; it may be empty, when it is not known.
func OpenTree(dir, release string) (*Tree, error) {
	root, err := releaseDir(dir, release)
	if err != nil {
		return nil, err
	}
	t := &Tree{dir: root, files: map[string]string{}, builtin: map[string]bool{}}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "source" || d.Name() == ".git"):
			return fs.SkipDir
		case d.Name() == "modules.builtin" && filepath.Dir(path) == root:
			return t.readBuiltin(path)
		}
		if name, ok := moduleName(d.Name()); ok && !d.IsDir() {
			t.files[name] = path
		}
		return nil
	})
	if err != nil {
		return nil, &Error{Text: "kernel modules", Err: err, Cure: modulesCure}
	}
	if len(t.files) == 0 && len(t.builtin) == 0 {
		return nil, &Error{Text: fmt.Sprintf("there are no kernel modules in %s", dir),
			Cure: modulesCure}
	}
	return t, nil
}

// releaseDir finds the modules of one kernel below dir.
func releaseDir(dir, release string) (string, error) {
	for _, below := range []string{"lib/modules", "usr/lib/modules"} {
		all := filepath.Join(dir, below)
		entries, err := os.ReadDir(all)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("kernel modules: %w", err)
		}
		var names []string
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
		switch {
		case slices.Contains(names, release):
			return filepath.Join(all, release), nil
		case len(names) == 1 && release == "":
			return filepath.Join(all, names[0]), nil
		case len(names) > 0 && release == "":
			return "", &Error{
				Text: fmt.Sprintf("%s has modules for %s, and the kernel's file does not tell its release", all,
					strings.Join(names, ", ")),
				Cure: "name one: -modules " + filepath.Join(all, names[0]),
			}
		case len(names) > 0:
			return "", otherRelease(all, strings.Join(names, ", "), release)
		}
	}
	return dir, nil
}

// otherRelease is the error for modules that are not the kernel's.
func otherRelease(dir, of, release string) error {
	return &Error{Text: fmt.Sprintf("the modules in %s are of Linux %s, and the kernel is %s", dir, of, release),
		Cure: "-modules names the folder that holds lib/modules/" + release + ", or that one"}
}

// moduleName returns the name of a module by that of its file.
func moduleName(file string) (name string, ok bool) {
	for _, end := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if base, found := strings.CutSuffix(file, end); found {
			return underscored(base), true
		}
	}
	return "", false
}

// underscored is a module's name as the kernel has it.
func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

func (t *Tree) readBuiltin(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := moduleName(filepath.Base(strings.TrimSpace(line))); ok {
			t.builtin[name] = true
		}
	}
	return nil
}

// Closure returns the named modules and those that they need, in the order in which they are to be
// loaded. What is built in needs no module; what is in the tree neither way is left out, because
// a kernel may lack it: that is for the probes to find out.
func (t *Tree) Closure(names []string) ([]Module, error) {
	var order []Module
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = underscored(name)
		if seen[name] {
			return nil
		}
		seen[name] = true
		path, ok := t.files[name]
		if !ok {
			// A softdep may name an algorithm, as crc32c, whose module has it as an alias.
			if name += "_generic"; seen[name] || t.files[name] == "" {
				return nil
			}
			seen[name], path = true, t.files[name]
		}
		m, err := readModule(name, path)
		if err != nil {
			return err
		}
		for _, before := range [][]string{m.pre, m.depends} {
			for _, other := range before {
				if err := visit(other); err != nil {
					return err
				}
			}
		}
		order = append(order, m)
		for _, other := range m.post {
			if err := visit(other); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// network returns the names of the modules that a host's network may need.
func (t *Tree) network() []string {
	var names []string
	for name, path := range t.files {
		if slices.ContainsFunc(networkFolders, func(f string) bool { return strings.Contains(path, "/"+f) }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// readModule reads a module's file and what it says of itself.
func readModule(name, path string) (Module, error) {
	data, err := readCompressed(path)
	if err != nil {
		return Module{}, fmt.Errorf("kernel module %s: %w", path, err)
	}
	m := Module{Name: name, Data: data}
	if err := m.parse(); err != nil {
		return Module{}, fmt.Errorf("kernel module %s: %w", path, err)
	}
	return m, nil
}

// readCompressed reads a file and takes the compression off that its name says.
func readCompressed(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	whole := &bounded{left: maxModule}
	switch filepath.Ext(path) {
	case ".xz":
		err = unpack(whole, f, "xz", "xz-utils")
	case ".zst":
		err = unpack(whole, f, "zstd", "zstd")
	case ".gz":
		z, err := newGzipReader(f)
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(whole, z)
		return whole.Bytes(), err
	default:
		_, err = io.Copy(whole, f)
	}
	return whole.Bytes(), err
}

// unpack has a program take the compression off, which reads it from its standard input. Most
// kernels have modules of one of the two kinds, and both libraries would be a thirtieth of this
// program.
func unpack(to io.Writer, from *os.File, program, debian string) error {
	cmd := exec.Command(program, "-dcq")
	var complaint strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = from, to, &complaint
	err := cmd.Run()
	var failed *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return &Error{Text: "it is compressed, and the program " + program + " is not installed",
			Cure: "install " + program + " (on Debian: apt-get install " + debian + ")", Err: err}
	case errors.As(err, &failed) && complaint.Len() > 0:
		return fmt.Errorf("%s: %s", program, strings.TrimSpace(complaint.String()))
	case err != nil:
		return fmt.Errorf("%s: %w", program, err)
	}
	return nil
}

// bounded keeps what is written, up to a number of bytes.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, fmt.Errorf("it has more than %d bytes", maxModule)
	}
	b.left -= len(p)
	return b.Buffer.Write(p)
}

// parse reads the section .modinfo: NAME=VALUE, ended by NUL bytes (include/linux/moduleparam.h).
// It says the same as modules.dep and modules.softdep, which are only there when depmod(8) was run.
func (m *Module) parse() error {
	file, err := openELF(m.Data)
	if err != nil {
		return err
	}
	info, err := file.section(".modinfo")
	if err != nil {
		return err
	}
	if info == nil {
		return errors.New("it has no section .modinfo")
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		key, value, _ := strings.Cut(string(entry), "=")
		switch key {
		case "depends":
			m.depends = append(m.depends, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "vermagic":
			m.release, _, _ = strings.Cut(value, " ")
		case "alias":
			m.aliases = append(m.aliases, value)
		case "softdep":
			to := &m.pre
			for _, word := range strings.Fields(value) {
				switch word {
				case "pre:":
					to = &m.pre
				case "post:":
					to = &m.post
				default:
					*to = append(*to, word)
				}
			}
		}
	}
	return nil
}
