package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pfdivert/roles/lab/labtest"
)

// TestInitramfs: what cpio(1) unpacks is what was put in.
func TestInitramfs(t *testing.T) {
	labtest.Programs(t, "cpio")
	var packed bytes.Buffer
	modules := []Module{{Name: "nf_tables", Data: []byte("module 1"), aliases: []string{"nfnetlink-subsys-10"}},
		{Name: "veth", Data: []byte("2")}, {Name: "xt_mark", Data: []byte("3"), aliases: []string{"ipt_mark"}}}
	have := contents{program: []byte("program"), modules: modules, loaded: 2,
		files: map[string][]byte{InputPath: []byte("input")}}
	if err := have.write(&packed); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("cpio", "-i", "--quiet", "--no-absolute-filenames", "-f", "dev/*") // devices take root
	cmd.Dir, cmd.Stdin = dir, z
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for path, want := range map[string]string{
		initPath: "program", moduleFile("nf_tables"): "module 1", moduleFile("veth"): "2",
		moduleFile("xt_mark"): "3", orderPath: "nf_tables\nveth\n", InputPath: "input",
		aliasesPath: "nf_tables nf_tables\nnfnetlink-subsys-10 nf_tables\nveth veth\nxt_mark xt_mark\nipt_mark xt_mark\n",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, path)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, modprobePath)); err != nil || to != initPath {
		t.Errorf("modprobe: %q, %v", to, err)
	}
	if info, err := os.Stat(filepath.Join(dir, initPath)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("init: %v, %v", info, err)
	}
}

// elfModule makes a module that has nothing but a section .modinfo.
func elfModule(order binary.ByteOrder, info ...string) []byte {
	data := strings.Join(info, "\x00") + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	const head, section = 64, 64
	at := uint64(head + len(data) + len(names))
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, order, v) }
	endian := byte(1)
	if order == binary.BigEndian {
		endian = 2
	}
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, endian, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	put([]uint16{1, 62})
	put(uint32(1))
	put([]uint64{0, 0, at})
	put(uint32(0))
	put([]uint16{head, 0, 0, section, 3, 2})
	b.WriteString(data + names)
	put(make([]uint64, section/8))
	put([]uint32{1, 1})
	put([]uint64{0, 0, head, uint64(len(data)), 0, 0, 0})
	b.Truncate(int(at) + 2*section - 8)
	put(uint64(0))
	put([]uint32{10, 3})
	put([]uint64{0, 0, head + uint64(len(data)), uint64(len(names)), 0, 0, 0})
	return b.Bytes()
}

// TestClosure: modules come in the order in which they can be loaded, whatever compresses them,
// without depmod(8) having been run.
func TestClosure(t *testing.T) {
	labtest.Programs(t, "xz", "zstd")
	dir := t.TempDir()
	tree := filepath.Join(dir, "lib/modules/6.1.0/kernel")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, pack func(io.Writer) io.WriteCloser, order binary.ByteOrder, info ...string) {
		var b bytes.Buffer
		w := pack(&b)
		_, err := w.Write(elfModule(order, info...))
		if err = errorsOf(err, w.Close(), os.WriteFile(filepath.Join(tree, name), b.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	plain := func(w io.Writer) io.WriteCloser { return nopCloser{w} }
	xzip := func(w io.Writer) io.WriteCloser { return &packer{to: w, program: "xz"} }
	zst := func(w io.Writer) io.WriteCloser { return &packer{to: w, program: "zstd"} }
	write("nft_tproxy.ko", plain, binary.LittleEndian, "depends=nf_tables,nf-tproxy-ipv4", "alias=nft-expr-tproxy",
		"vermagic=6.1.0 SMP mod_unload ")
	write("nf_tables.ko.xz", xzip, binary.BigEndian, "depends=nfnetlink",
		"softdep=pre: crc32c-arch crc32c post: nft_ct missing")
	write("nf-tproxy-ipv4.ko.zst", zst, binary.LittleEndian, "depends=")
	write("nfnetlink.ko.gz", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, binary.LittleEndian,
		"depends=builtin")
	write("crc32c-arch.ko", plain, binary.LittleEndian, "license=GPL")
	write("crc32c_generic.ko", plain, binary.LittleEndian, "alias=crc32c")
	write("nft_ct.ko", plain, binary.LittleEndian, "depends=nf_tables")
	builtin := filepath.Join(dir, "lib/modules/6.1.0/modules.builtin")
	if err := os.WriteFile(builtin, []byte("kernel/builtin.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	opened, err := OpenTree(dir, "6.1.0")
	if err != nil {
		t.Fatal(err)
	}
	modules, err := opened.Closure([]string{"nft_tproxy", "veth", "builtin"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range modules {
		names = append(names, m.Name)
	}
	want := []string{"crc32c_arch", "crc32c_generic", "nfnetlink", "nf_tables", "nft_ct", "nf_tproxy_ipv4",
		"nft_tproxy"}
	if !slices.Equal(names, want) {
		t.Errorf("order %q, want %q", names, want)
	}
	// Modules of another kernel, by the name of their folder and by what they say of themselves.
	for folder, release := range map[string]string{dir: "6.12.0", tree: "6.1.1"} {
		_, _, err := Options{Modules: folder}.modules(&Image{Release: release})
		if err == nil || !strings.Contains(err.Error(), " are of Linux 6.1.0, and the kernel is "+release) {
			t.Errorf("modules of another kernel in %s: %v", folder, err)
		}
	}
	for _, release := range []string{"6.1.0", ""} { // some images do not tell theirs
		if all, loaded, err := (Options{Modules: tree}).modules(&Image{Release: release}); err != nil ||
			loaded != len(all) || loaded == 0 {
			t.Errorf("modules of the kernel %q: %d of %d, %v", release, loaded, len(all), err)
		}
	}
	if _, err := OpenTree(t.TempDir(), ""); err == nil {
		t.Error("an empty folder is a tree")
	}
}

// packer compresses with a program what was written, when it is closed.
type packer struct {
	bytes.Buffer
	to      io.Writer
	program string
}

func (p *packer) Close() error {
	cmd := exec.Command(p.program, "-cq")
	cmd.Stdin, cmd.Stdout = &p.Buffer, p.to
	return cmd.Run()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestParseImage knows kernels by their headers.
func TestParseImage(t *testing.T) {
	at := func(size int, parts map[int]string) []byte {
		b := make([]byte, size)
		for offset, text := range parts {
			copy(b[offset:], text)
		}
		return b
	}
	zipped := func(b []byte) []byte {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		_, _ = z.Write(b)
		_ = z.Close()
		return out.Bytes()
	}
	arm64 := at(128, map[int]string{0x38: "ARM\x64"})
	for _, c := range []struct {
		name          string
		head          []byte
		arch, release string
	}{
		{"bzImage", at(0x4000, map[int]string{0x202: "HdrS\x0f\x02", 0x20e: "\x00\x10", 0x236: "\x01",
			0x1200: "6.1.0-50-cloud-amd64 (debian)\x00"}), "amd64", "6.1.0-50-cloud-amd64"},
		{"bzImage of i386", at(0x4000, map[int]string{0x202: "HdrS\x0f\x02", 0x20e: "\x00\x10", 0x1200: "5.10 x\x00"}),
			"386", "5.10"},
		{"Image", arm64, "arm64", ""},
		{"Image.gz", zipped(arm64), "arm64", ""},
		{"zImage", at(64, map[int]string{0x24: "\x18\x28\x6f\x01"}), "arm", ""},
		{"riscv Image", at(64, map[int]string{0x38: "RSC\x05"}), "riscv64", ""},
		{"s390", at(0x10020, map[int]string{0x10008: "S390EP"}), "s390x", ""},
		{"vmlinux of Malta", at(64, map[int]string{0: "\x7fELF\x01\x01\x01", 18: "\x08\x00"}), "mipsle", ""},
		{"vmlinux of Octeon", at(64, map[int]string{0: "\x7fELF\x02\x02\x01", 18: "\x00\x08"}), "mips64", ""},
		{"cut off", []byte("\x7fELF"), "", ""},
		{"zboot", at(64, map[int]string{0: "MZ\x00\x00zimg"}), "", ""},
		{"text", []byte("#!/bin/sh\n"), "", ""},
		{"nothing", nil, "", ""},
	} {
		image, err := parseImage(c.head)
		switch {
		case c.arch == "" && err == nil:
			t.Errorf("%s is taken for a kernel of %s", c.name, image.Arch)
		case c.arch != "" && (err != nil || image.Arch != c.arch || image.Release != c.release):
			t.Errorf("%s: %+v, %v", c.name, image, err)
		}
	}
}

func FuzzParseImage(f *testing.F) {
	f.Add([]byte("\x7fELF\x01\x01\x01"))
	f.Add(append(make([]byte, 0x202), "HdrS\x0f\x02"...))
	f.Fuzz(func(t *testing.T, head []byte) { _, _ = parseImage(head) })
}

// TestConsole: the newest lines, without what a terminal obeys, and reports.
func TestConsole(t *testing.T) {
	c := readConsole(io.NopCloser(strings.NewReader("\x1b[2Jfirmware\r\n[    0.000000] Linux version 6.1\n" +
		strings.Repeat("line\n", 2*consoleLines) + strings.Repeat("x", 3*maxConsoleLine) + "\nBUG: end")))
	<-c.over
	select {
	case <-c.begun:
	default:
		t.Error("its first line was not noticed")
	}
	if got := c.Tail(1); got != "BUG: end" {
		t.Errorf("the last line is %q", got)
	}
	if got := c.Splats(); !slices.Equal(got, []string{"BUG: end\n"}) || !slices.Equal(c.Splats(), got) {
		t.Errorf("reports %q", got)
	}
	if len(c.last) > consoleLines {
		t.Errorf("%d lines are kept", len(c.last))
	}
}

// TestBesideBoot: modules are where packages have them, also of images that do not tell their
// release.
func TestBesideBoot(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"boot", "lib/modules/6.1.0-s390x", "usr/lib/modules/7.2"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ path, release, want string }{
		{"boot/vmlinuz-6.1.0-s390x", "", "lib/modules/6.1.0-s390x"},
		{"boot/vmlinuz-6.1.0-s390x", "7.2", "usr/lib/modules/7.2"},
		{"boot/vmlinuz-6.2", "", ""},
		{"boot/vmlinuz", "", ""},
		{"usr/lib/modules/7.2/vmlinuz", "7.2", "usr/lib/modules/7.2"},
		{"usr/lib/modules/7.2/vmlinuz", "", ""},
	} {
		want := c.want
		if want != "" {
			want = filepath.Join(root, want)
		}
		if got := besideBoot(&Image{Path: filepath.Join(root, c.path), Release: c.release}); got != want {
			t.Errorf("%s of release %q: %q, want %q", c.path, c.release, got, want)
		}
	}
}
