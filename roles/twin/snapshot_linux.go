package twin

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
	"pfdivert/roles/wire"
)

// snapshotHead is the first line of a snapshot's file. What follows is a Dump as package wire packs
// it, in gzip. The number changes when an older program would read it wrongly.
const snapshotHead = "pfdivert snapshot 2\n"

// Bounds of a snapshot: of its bytes when unpacked, of the elements of each list, and of what a
// kernel is asked to make of it. A host with all of these is larger than any that was seen.
const (
	maxSnapshot   = 64 << 20
	maxLinks      = 4096
	maxText       = 4096
	maxSocketList = 8192
)

// A SnapshotError says why a file is no snapshot that can be used here.
type SnapshotError struct {
	Err  error
	hint string
}

func (e *SnapshotError) Error() string { return "snapshot: " + e.Err.Error() }

// Unwrap returns what is wrong with it.
func (e *SnapshotError) Unwrap() error { return e.Err }

// Hint is what to do about it, for people.
func (e *SnapshotError) Hint() string { return e.hint }

// Save writes a snapshot of the configuration, for a bug report. Comments, hardware addresses'
// vendors, and neighbors that no rule names are left out.
func (c *Snapshot) Save(w io.Writer) error {
	d, err := c.spared()
	if err != nil {
		return err
	}
	b, err := wire.Append(nil, d)
	if err != nil {
		return err
	}
	if len(b) > maxSnapshot {
		return fmt.Errorf("the configuration has %d MB, and a snapshot %d at most", len(b)>>20, maxSnapshot>>20)
	}
	if _, err := io.WriteString(w, snapshotHead); err != nil {
		return err
	}
	z := gzip.NewWriter(w)
	_, err = z.Write(b)
	return errors.Join(err, z.Close())
}

// Load reads a snapshot. It trusts nothing in it. An error is a *SnapshotError, or one of r.
func Load(r io.Reader) (*Snapshot, error) {
	head := make([]byte, len(snapshotHead))
	if _, err := io.ReadFull(r, head); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, &SnapshotError{errors.New("the file is cut, or is none"), notOne}
	} else if err != nil {
		return nil, err
	}
	if string(head) != snapshotHead {
		if strings.HasPrefix(string(head), "pfdivert snapshot") {
			return nil, &SnapshotError{errors.New("the file is of another version of this program"),
				"use the version of pfdivert that wrote it"}
		}
		return nil, &SnapshotError{errors.New("the file is none"), notOne}
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, &SnapshotError{err, notOne}
	}
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(z, maxSnapshot+1))
	if err != nil {
		return nil, &SnapshotError{err, notOne}
	} else if n > maxSnapshot {
		return nil, &SnapshotError{fmt.Errorf("it has more than %d MB", maxSnapshot>>20), notOne}
	}
	return unpacked(b.Bytes())
}

// notOne is the hint for a file that no one can use.
const notOne = "give a file that 'pfdivert doctor -save FILE' wrote"

// unpacked makes a configuration of a snapshot's bytes.
func unpacked(b []byte) (*Snapshot, error) {
	var d Dump
	if err := wire.Unpack(b, &d); err != nil {
		return nil, &SnapshotError{err, notOne}
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	c, err := decode(&d)
	if err != nil {
		return nil, &SnapshotError{err, notOne}
	}
	if err := c.checkNames(); err != nil {
		return nil, &SnapshotError{err, notOne}
	}
	if here := system(); here.Kernel != d.System.Kernel || here.Machine != d.System.Machine {
		c.NotCloned = append(c.NotCloned, fmt.Sprintf("the host's kernel: it has Linux %s on %s, and what is said here is of Linux %s on %s",
			d.System.Kernel, d.System.Machine, here.Kernel, here.Machine))
	}
	return c, nil
}

// check refuses what can't be replayed here, and what is not as Save writes it.
func (d *Dump) check() error {
	here := system()
	if s := d.System; s.BigEndian != here.BigEndian || s.PointerBits != here.PointerBits ||
		s.PointerBits == 32 && s.Machine != here.Machine { // alignments differ among those
		return &SnapshotError{
			fmt.Errorf("it is of a system %q of %d bits, and this one is %q of %d", s.Machine, s.PointerBits,
				here.Machine, here.PointerBits),
			"run it on a machine like that, or in an emulator",
		}
	}
	wrong := func(format string, args ...any) error {
		return &SnapshotError{fmt.Errorf(format, args...), notOne}
	}
	if len(d.Links) > maxLinks || len(d.Sockets) > maxSocketList {
		return wrong("it has %d network devices and %d sockets", len(d.Links), len(d.Sockets))
	}
	for name, value := range d.Settings {
		if len(value) > maxText || !printable(name) || !printable(strings.ReplaceAll(value, "\t", "")) {
			return wrong("setting %q", name)
		}
	}
	for _, text := range append(append([]string{d.System.Kernel, d.System.Machine}, d.NotCloned...), d.Unread...) {
		if len(text) > maxText || !printable(text) {
			return wrong("a text %.40q", text)
		}
	}
	for _, s := range d.Sockets {
		if s.Proto != "tcp" && s.Proto != "udp" || !s.Local.IsValid() || s.Local.Addr().Zone() != "" ||
			!printable(s.Comm) {
			return wrong("a socket %q of %q", s.Proto, s.Comm)
		}
	}
	for _, u := range d.Upstreams {
		if u.Proto != "tcp" && u.Proto != "udp" || !printable(u.Comm) || len(d.Upstreams) > maxSocketList {
			return wrong("a connection %q of %q", u.Proto, u.Comm)
		}
	}
	for _, m := range append(append([]NetlinkMessage{}, d.NFT...), d.Asked...) {
		if m.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
			return wrong("a message of type %d for nf_tables", m.Type)
		}
	}
	for _, m := range d.Asked {
		if m.Type&0xff != unix.NFT_MSG_NEWSETELEM || len(m.Data) < 4 {
			return wrong("a message of type %d for elements", m.Type)
		}
	}
	for _, t := range d.Legacy {
		if len(t.Info) != xt.InfoSize || !printable(t.Name) || len(t.Name) > 31 ||
			int(host32(t.Info[80:84])) != len(t.Entries) {
			return wrong("table %q of iptables-legacy", t.Name)
		}
		count := uint32(0)
		if err := t.each(func([]byte, string) error { count++; return nil }); err != nil ||
			count != host32(t.Info[76:80]) {
			return wrong("table %q of iptables-legacy is cut", t.Name)
		}
	}
	return nil
}

// checkNames refuses names that a terminal would act upon.
func (c *Snapshot) checkNames() error {
	var names []string
	for _, l := range c.Links {
		names = append(names, l.Name, l.Kind)
	}
	for _, t := range c.Tables {
		names = append(names, t.Name)
		for _, chain := range t.Chains {
			names = append(append(names, chain.Name, chain.Type), chain.Devices...)
			for _, r := range chain.Rules {
				for _, e := range r.Exprs {
					names = append(names, e.Name)
				}
			}
		}
		for _, s := range t.Sets {
			names = append(names, s.Name)
		}
		for _, o := range t.Objects {
			names = append(names, o.Name)
		}
	}
	for _, s := range c.IPSets {
		names = append(names, s.Name, s.Type)
	}
	for _, r := range c.PolicyRules {
		names = append(names, r.In, r.Out)
	}
	for _, name := range names {
		if !printable(name) || len(name) > 256 {
			return fmt.Errorf("a name %.40q", name)
		}
	}
	return nil
}

// printable reports whether a text is one that a terminal only shows.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
