package twin

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"pfdivert/pfconf/xt"
)

// legacyFamily is one of the two old iptables.
type legacyFamily struct {
	ipv6  bool
	names string // file below /proc/net that lists the tables that are there
}

var legacyFamilies = []legacyFamily{
	{false, "ip_tables_names"}, {true, "ip6_tables_names"},
}

// readLegacy reads the tables of iptables-legacy and ip6tables-legacy. It asks for none that is not
// there, because the kernel would make it, and load its module.
func (d *Dump) readLegacy(context.Context) error {
	for _, f := range legacyFamilies {
		names, err := procNet(f.names)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(strings.Fields(string(names))) == 0 {
			continue
		} else if err != nil {
			return err
		}
		socket, err := xt.Open(f.ipv6)
		if err != nil {
			return err
		}
		for _, name := range strings.Fields(string(names)) {
			t := LegacyTable{IPv6: f.ipv6, Name: name}
			if t.Info, t.Entries, err = socket.Read(name); err != nil {
				break
			}
			d.Legacy = append(d.Legacy, t)
		}
		_ = socket.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
