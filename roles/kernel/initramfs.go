package kernel

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"pfdivert/pfconf/need"
)

func newGzipReader(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }

// Where things are in the initramfs. Its init is this program.
const (
	initPath     = "/init"
	modprobePath = "/sbin/modprobe"
	modulesPath  = "/lib/modules/pfdivert"
	// orderPath lists the modules that init loads, in their order, a name on a line.
	orderPath = modulesPath + "/order"
	// aliasesPath has what modules are asked for by, their names first: PATTERN MODULE.
	aliasesPath = modulesPath + "/aliases"
	// argumentsPath has what Run asks for: words, with a NUL byte behind each.
	argumentsPath = "/arguments"
	// InputPath is a file that Run gives the program, and OutputPath one that it may write.
	InputPath, OutputPath = "/input", "/output"
)

// devices are the modules by which a guest and QEMU talk to each other.
var devices = []string{"virtio_pci", "virtio_mmio", "virtio_ccw", "virtio_console"}

// ModuleNames are those of the modules that the initramfs holds, where the kernel has not
// built them in.
func ModuleNames() []string {
	names := slices.Clone(devices)
	for _, f := range need.Features() {
		names = append(names, f.Modules...)
	}
	return names
}

// networkFolders are where the modules are, in a kernel's tree, that a host's configuration of its
// network may need, and that the kernel asks for when it does.
var networkFolders = []string{
	"net/netfilter/", "net/ipv4/", "net/ipv6/", "net/bridge/", "net/8021q/", "net/sched/", "net/unix/", "net/xfrm/",
	"drivers/net/",
}

// contents are what an initramfs holds.
type contents struct {
	program []byte // its init
	modules []Module
	loaded  int // how many of them, from the first on, are loaded by init; the others when they are asked for
	files   map[string][]byte
}

// write writes the initramfs.
func (have contents) write(w io.Writer) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	c := &cpio{w: z}
	for _, dir := range []string{
		"dev", "proc", "sys", "run", "tmp", "root", "sbin", "lib", "lib/modules", modulesPath[1:], "var",
	} {
		c.dir(dir)
	}
	c.device("dev/console", 5, 1) // standard input and output of init
	c.device("dev/null", 1, 3)    // what Go takes where there is no console
	c.link("var/run", "/run")
	c.link(modprobePath[1:], initPath)
	c.file(initPath[1:], 0o755, have.program)
	for _, path := range slices.Sorted(maps.Keys(have.files)) {
		c.file(path[1:], 0o600, have.files[path])
	}
	var order, aliases bytes.Buffer
	for i, m := range have.modules {
		c.file(moduleFile(m.Name)[1:], 0o644, m.Data)
		if i < have.loaded {
			order.WriteString(m.Name + "\n")
		}
		for _, a := range append([]string{m.Name}, m.aliases...) {
			if !strings.ContainsAny(a, " \n") {
				aliases.WriteString(a + " " + m.Name + "\n")
			}
		}
	}
	c.file(orderPath[1:], 0o644, order.Bytes())
	c.file(aliasesPath[1:], 0o644, aliases.Bytes())
	if err := c.close(); err != nil {
		return err
	}
	return z.Close()
}

func moduleFile(name string) string { return path.Join(modulesPath, name+".ko") }
