package kernel

import (
	"bytes"
	"compress/gzip"
	"io"
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
	// orderPath lists modules in the order in which they are loaded, a name on a line.
	orderPath = modulesPath + "/order"
	// aliasesPath has what else modules are asked for by: PATTERN MODULE.
	aliasesPath = modulesPath + "/aliases"
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

// WriteInitramfs writes an initramfs with the program as init and the modules.
func WriteInitramfs(w io.Writer, program []byte, modules []Module) error {
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
	c.file(initPath[1:], 0o755, program)
	var order, aliases bytes.Buffer
	for _, m := range modules {
		c.file(moduleFile(m.Name)[1:], 0o644, m.Data)
		order.WriteString(m.Name + "\n")
		for _, a := range m.aliases {
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
