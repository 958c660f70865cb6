package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Image is what a kernel's file says of itself.
type Image struct {
	Path string
	// Arch is Go's name of the processor that it is for.
	Arch string
	// Release is what uname -r will say, empty where the file does not tell before it runs.
	Release string
}

// maxImageHead bounds what is read of a kernel's file to find out what it is: headers are in
// the first pages.
const maxImageHead = 128 << 10

const imageCure = "-kernel names a bzImage, Image, zImage or vmlinux: arch/x86/boot/bzImage"

// ReadImage looks at a kernel's file.
func ReadImage(path string) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{Text: "kernel", Err: err, Cure: imageCure}
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, maxImageHead))
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", path, err)
	}
	image, err := parseImage(head)
	if err != nil {
		return nil, &Error{Text: "kernel " + path, Err: err, Cure: imageCure}
	}
	image.Path = path
	return image, nil
}

// parseImage knows a kernel by the beginning of its file.
func parseImage(head []byte) (*Image, error) {
	if bytes.HasPrefix(head, []byte{0x1f, 0x8b}) { // arm64's Image.gz
		z, err := gzip.NewReader(bytes.NewReader(head))
		if err != nil {
			return nil, err
		}
		// The end is missing, but the header is not.
		inner, _ := io.ReadAll(io.LimitReader(z, maxImageHead))
		head = inner
	}
	at := func(offset int, magic string) bool {
		return len(head) >= offset+len(magic) && string(head[offset:offset+len(magic)]) == magic
	}
	switch {
	case at(0x202, "HdrS"):
		return parseBzImage(head)
	case at(0x38, "ARM\x64"): // Documentation/arch/arm64/booting.rst
		return &Image{Arch: "arm64"}, nil
	case at(0x38, "RSC\x05"): // Documentation/arch/riscv/boot-image-header.rst
		return &Image{Arch: "riscv64"}, nil
	case at(0x24, "\x18\x28\x6f\x01"): // arch/arm/boot/compressed/head.S
		return &Image{Arch: "arm"}, nil
	case at(0x38, "\xcd\x23\x82\x81"): // include/linux/pe.h, LINUX_LOONGARCH_MAGIC's place
		return &Image{Arch: "loong64"}, nil
	case at(4, "zimg"): // an EFI image that unpacks itself (drivers/firmware/efi/libstub/zboot-header.S)
		return nil, errors.New("it is an EFI image, which QEMU does not start without firmware; take the Image that it was made of")
	case at(0, elfMagic):
		return parseELF(head)
	case at(0x10008, "S390EP"):
		return &Image{Arch: "s390x"}, nil
	}
	return nil, errors.New("it is no Linux kernel that is known here")
}

// parseBzImage reads the header of Documentation/arch/x86/boot.rst.
func parseBzImage(head []byte) (*Image, error) {
	const (
		versionAt  = 0x20e // where the version string is, less 0x200
		protocolAt = 0x206
		flagsAt    = 0x236 // xloadflags; its first bit is a 64-bit entry point
	)
	image := &Image{Arch: "386"}
	if len(head) <= flagsAt+1 {
		return nil, errors.New("its header is cut off")
	}
	if binary.LittleEndian.Uint16(head[protocolAt:]) >= 0x20c && head[flagsAt]&1 != 0 {
		image.Arch = "amd64"
	}
	if at := int(binary.LittleEndian.Uint16(head[versionAt:])) + 0x200; at > 0x200 && at < len(head) {
		text, _, _ := bytes.Cut(head[at:], []byte{0})
		image.Release, _, _ = strings.Cut(string(text), " ")
	}
	return image, nil
}

// parseELF knows a vmlinux's processor.
func parseELF(head []byte) (*Image, error) {
	if len(head) < 20 {
		return nil, errors.New("its header is cut off")
	}
	var order binary.ByteOrder = binary.LittleEndian
	big := head[elfData] == elfBig
	if big {
		order = binary.BigEndian
	}
	wide := head[elfClass] == elfClass64
	switch machine := order.Uint16(head[18:]); {
	case machine == machineX8664:
		return &Image{Arch: "amd64"}, nil
	case machine == machine386:
		return &Image{Arch: "386"}, nil
	case machine == machineS390:
		return &Image{Arch: "s390x"}, nil
	case machine == machineMIPS:
		arch := "mips"
		if wide {
			arch += "64"
		}
		if !big {
			arch += "le"
		}
		return &Image{Arch: arch}, nil
	case machine == machinePPC64 && !big:
		return &Image{Arch: "ppc64le"}, nil
	default:
		return nil, fmt.Errorf("it is for a processor that QEMU is not started for here: ELF machine %d", machine)
	}
}
