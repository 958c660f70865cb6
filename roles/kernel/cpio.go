package kernel

import (
	"fmt"
	"io"
	"io/fs"
)

// cpio writes an archive of the format "newc", which the kernel unpacks as its first root file
// system (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	w     io.Writer
	inode int
	err   error // the first
}

// The types of files, which newc has from stat(2).
const (
	cpioDir     = 0o040000
	cpioRegular = 0o100000
	cpioLink    = 0o120000
	cpioChar    = 0o020000
)

func (c *cpio) dir(name string) { c.entry(name, cpioDir|0o755, 0, 0, nil) }

func (c *cpio) file(name string, mode fs.FileMode, data []byte) {
	c.entry(name, cpioRegular|uint32(mode.Perm()), 0, 0, data)
}

func (c *cpio) link(name, target string) { c.entry(name, cpioLink|0o777, 0, 0, []byte(target)) }

func (c *cpio) device(name string, major, minor uint32) {
	c.entry(name, cpioChar|0o600, major, minor, nil)
}

// close ends the archive.
func (c *cpio) close() error {
	c.entry("TRAILER!!!", 0, 0, 0, nil)
	return c.err
}

// entry writes a header, a name and data, each padded to four bytes. All belong to root, and
// were made at the epoch: the same files make the same archive.
func (c *cpio) entry(name string, mode, major, minor uint32, data []byte) {
	if c.err != nil {
		return
	}
	c.inode++
	head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	for _, part := range [][]byte{[]byte(head), data} {
		if len(part) == 0 {
			continue
		}
		if _, c.err = c.w.Write(append(part[:len(part):len(part)], make([]byte, -len(part)&3)...)); c.err != nil {
			return
		}
	}
}
