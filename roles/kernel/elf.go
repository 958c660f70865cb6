package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Values of elf(5). Importing debug/elf for them links DWARF and all compressions of sections.
const (
	elfMagic     = "\x7fELF"
	elfClass     = 4 // EI_CLASS, index of the byte
	elfClass64   = 2 // ELFCLASS64
	elfData      = 5 // EI_DATA, index of the byte
	elfBig       = 2 // ELFDATA2MSB
	elfInterp    = 3 // PT_INTERP
	machine386   = 3 // e_machine: EM_386
	machineMIPS  = 8
	machinePPC64 = 21
	machineS390  = 22
	machineX8664 = 62
)

// elfFile is what is read of an ELF file here.
type elfFile struct {
	data  []byte
	order binary.ByteOrder
	wide  bool // of 64 bits
}

var errELF = errors.New("it is no whole ELF file")

func openELF(data []byte) (*elfFile, error) {
	if len(data) < 52 || string(data[:4]) != elfMagic {
		return nil, errELF
	}
	f := &elfFile{data: data, order: binary.LittleEndian, wide: data[elfClass] == elfClass64}
	if data[elfData] == elfBig {
		f.order = binary.BigEndian
	}
	if f.wide && len(data) < 64 {
		return nil, errELF
	}
	return f, nil
}

// word is a number of the file's width.
func (f *elfFile) word(b []byte) uint64 {
	if f.wide {
		return f.order.Uint64(b)
	}
	return uint64(f.order.Uint32(b))
}

// bytes is a piece of the file.
func (f *elfFile) bytes(offset, size uint64) ([]byte, error) {
	if all := uint64(len(f.data)); offset > all || size > all-offset {
		return nil, errELF
	}
	return f.data[offset : offset+size], nil
}

// table returns the entries of a table, of which each has at least the given size.
func (f *elfFile) table(offset uint64, size, number uint16, atLeast int) ([][]byte, error) {
	if number > 0 && int(size) < atLeast {
		return nil, errELF
	}
	all, err := f.bytes(offset, uint64(size)*uint64(number))
	if err != nil {
		return nil, err
	}
	entries := make([][]byte, number)
	for i := range entries {
		entries[i] = all[i*int(size) : (i+1)*int(size)]
	}
	return entries, nil
}

// section returns the contents of a section, nil if there is none of that name (elf(5), Elf64_Shdr
// and Elf32_Shdr).
func (f *elfFile) section(name string) ([]byte, error) {
	offset, sizes, atLeast, offsetAt, sizeAt := 0x20, 0x2e, 40, 0x10, 0x14
	if f.wide {
		offset, sizes, atLeast, offsetAt, sizeAt = 0x28, 0x3a, 64, 0x18, 0x20
	}
	u16 := func(at int) uint16 { return f.order.Uint16(f.data[at:]) }
	entries, err := f.table(f.word(f.data[offset:]), u16(sizes), u16(sizes+2), atLeast)
	if err != nil {
		return nil, err
	}
	contents := func(entry []byte) ([]byte, error) { return f.bytes(f.word(entry[offsetAt:]), f.word(entry[sizeAt:])) }
	index := int(u16(sizes + 4))
	if index >= len(entries) {
		return nil, errELF
	}
	names, err := contents(entries[index])
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		at := f.order.Uint32(entry)
		if uint64(at) > uint64(len(names)) {
			return nil, errELF
		}
		if own, _, _ := bytes.Cut(names[at:], []byte{0}); string(own) == name {
			return contents(entry)
		}
	}
	return nil, nil
}

// isDynamic reports whether a program is started by another, which links it with libraries.
func isDynamic(program []byte) bool {
	f, err := openELF(program)
	if err != nil {
		return false
	}
	offset, sizes := 0x1c, 0x2a
	if f.wide {
		offset, sizes = 0x20, 0x36
	}
	size, number := f.order.Uint16(program[sizes:]), f.order.Uint16(program[sizes+2:])
	entries, err := f.table(f.word(program[offset:]), size, number, 4)
	if err != nil {
		return false
	}
	for _, entry := range entries {
		if f.order.Uint32(entry) == elfInterp {
			return true
		}
	}
	return false
}
