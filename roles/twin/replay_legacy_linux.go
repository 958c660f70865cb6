package twin

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
)

// each calls f for each entry of the table, with its target's name.
func (t *LegacyTable) each(f func(entry []byte, target string) error) error {
	at := xt.LayoutOf(t.IPv6)
	for b := t.Entries; len(b) > 0; {
		if len(b) < at.Size {
			return errAttr
		}
		target, next := int(host32(b[at.Target:at.Target+2])), int(host32(b[at.Target+2:at.Target+4]))
		// struct xt_entry_target: size u16, name[29], revision u8
		if target < at.Size || next < target+xt.Head || next > len(b) {
			return errAttr
		}
		if err := f(b[:next], text(b[target+2:target+31])); err != nil {
			return err
		}
		b = b[next:]
	}
	return nil
}

// matches calls f for each match of an entry.
func (t *LegacyTable) matches(e []byte, f func(name string, data []byte)) {
	at := xt.LayoutOf(t.IPv6)
	target := int(host32(e[at.Target : at.Target+2]))
	// struct xt_entry_match: size u16, name[29], revision u8
	for b := e[at.Size:target]; len(b) >= xt.Head; {
		size := int(host32(b[:2]))
		if size < xt.Head || size > len(b) {
			return
		}
		f(text(b[2:31]), b[xt.Head:size])
		b = b[size:]
	}
}

// clean is the table's entries without counters and without rules that would write to the host's
// log: they match nothing, and keep their place.
func (t *LegacyTable) clean() ([]byte, error) {
	c := LegacyTable{t.IPv6, t.Name, t.Info, bytes.Clone(t.Entries)}
	at := xt.LayoutOf(c.IPv6)
	return c.Entries, c.each(func(e []byte, target string) error {
		clear(e[at.Counters : at.Counters+16])
		switch target {
		case "LOG", "AUDIT":
			// The source 255.255.255.255 or ff…ff, which no packet has.
			for i := range at.Address {
				e[i], e[2*at.Address+i] = 0xff, 0xff
			}
		case "IDLETIMER", "LED":
			return fmt.Errorf("target %s is the machine's and no namespace's", target)
		}
		return nil
	})
}

// legacy copies the tables of iptables-legacy and ip6tables-legacy.
func (r *replay) legacy() error {
	for _, t := range r.Legacy {
		f := legacyFamilies[b2i(t.IPv6)]
		err := t.replay(f)
		if err != nil {
			r.lack("iptables-legacy", "table %s of %s: %v", t.Name, legacyTool(t.IPv6), err)
		}
	}
	return nil
}

func legacyTool(ipv6 bool) string {
	if ipv6 {
		return "ip6tables-legacy"
	}
	return "iptables-legacy"
}

func (t *LegacyTable) replay(f legacyFamily) error {
	entries, err := t.clean()
	if err != nil {
		return err
	}
	socket, err := xt.Open(f.ipv6)
	if err != nil {
		return err
	}
	defer socket.Close()
	// This makes the table, in the copy's namespace.
	now, _, err := socket.Read(t.Name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOPROTOOPT) {
		return errors.New("this kernel has no such table")
	} else if err != nil {
		return err
	}
	_, err = socket.Replace(t.Name, xt.InfoOf(now).Number, xt.InfoOf(t.Info), entries)
	return err
}
