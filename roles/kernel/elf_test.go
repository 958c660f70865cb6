package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestUnpackRefuses: a module that is cut, too large or whose unpacker is not installed is an error.
func TestUnpackRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "veth.ko.zst")
	if err := os.WriteFile(path, []byte("no zstd"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readCompressed(path); err == nil {
		t.Error("a file that is not compressed is unpacked")
	}
	t.Setenv("PATH", t.TempDir())
	var e *Error
	if _, err := readModule("veth", path); !errors.As(err, &e) || e.Cure == "" {
		t.Errorf("without zstd: %v", err)
	}
	if _, err := (&bounded{left: 2}).Write([]byte("abc")); err == nil {
		t.Error("a module has no bound")
	}
}

// TestELF: programs and modules are read as debug/elf reads them.
func TestELF(t *testing.T) {
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip("no /proc/self/exe: ", err)
	}
	want, err := elf.NewFile(bytes.NewReader(own))
	if err != nil {
		t.Fatal(err)
	}
	f, err := openELF(own)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range want.Sections {
		if s.Type == elf.SHT_NOBITS || s.Name == "" {
			continue
		}
		data, err := s.Data()
		if got, e := f.section(s.Name); err != nil || e != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v; want %d, %v", s.Name, len(got), e, len(data), err)
		}
	}
	if want.Class != elf.ELFCLASS64 {
		return
	}
	interp := bytes.Clone(own)
	if isDynamic(interp) != (want.Section(".interp") != nil) {
		t.Error("isDynamic says the opposite")
	}
	at := binary.NativeEndian.Uint64(interp[0x20:])
	binary.NativeEndian.PutUint32(interp[at:], uint32(elf.PT_INTERP))
	if !isDynamic(interp) {
		t.Error("a program with an interpreter is static")
	}
}

// FuzzELF: no file makes the reader panic.
func FuzzELF(f *testing.F) {
	f.Add(elfModule(binary.LittleEndian, "depends=a"))
	f.Add(elfModule(binary.BigEndian, "depends=a"))
	narrow := elfModule(binary.LittleEndian, "depends=a")
	narrow[elf.EI_CLASS] = byte(elf.ELFCLASS32)
	f.Add(narrow)
	f.Fuzz(func(_ *testing.T, b []byte) {
		isDynamic(b)
		_ = (&Module{Data: b}).parse()
	})
}
