package twin

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Place finds the device that a client is behind: the one that the host's routes to it name. A
// sender with an address of the host's own is a program of the host.
func (c *Snapshot) Place(f Flow) (Flow, error) {
	if f.In == "" || f.In == Anywhere && c.isOwn(f.From.Addr()) {
		f.In = ""
		f.ID = f.name()
		return f, nil
	}
	find := func(index int) string {
		for _, l := range c.Links {
			if _, outside := c.wired(l); outside && l.Up() && c.holder(l).Index == index {
				return l.Name
			}
		}
		return ""
	}
	if f.In != Anywhere {
		for _, l := range c.Links {
			if l.Name != f.In {
				continue
			}
			if f.In = find(l.Index); f.In == "" {
				if _, outside := c.wired(l); outside {
					f.In = l.Name
				}
			}
			if f.In == "" {
				return f, &FlowError{f.ID, fmt.Sprintf("no client is behind %s", l.Name)}
			}
			f.ID = f.name()
			return f, nil
		}
		return f, &FlowError{f.ID, fmt.Sprintf("this host has no device %s", f.In)}
	}
	// The longest prefix decides, also where no client can be behind its device.
	best, device, why := -1, "", fmt.Sprintf("no route of this host leads to %v", f.From.Addr())
	for _, r := range c.Routes {
		if r.Type != unix.RTN_UNICAST || !r.Dst.IsValid() || !r.Dst.Contains(f.From.Addr()) || r.Dst.Bits() < best {
			continue
		}
		for _, h := range r.Hops {
			name, l := find(h.Index), c.link(h.Index)
			switch {
			case name != "" && (r.Dst.Bits() > best || device == ""):
				best, device = r.Dst.Bits(), name
			case name == "" && l != nil && r.Dst.Bits() > best:
				best, device, why = r.Dst.Bits(), "", c.clientless(*l)
			}
		}
	}
	if device == "" {
		return f, &FlowError{f.ID, why}
	}
	f.In = device
	f.ID = f.name()
	return f, nil
}

func (c *Snapshot) isOwn(a netip.Addr) bool {
	for _, o := range c.Addrs {
		if o.Local == a {
			return true
		}
	}
	return false
}

// holder is the device that has the addresses of a device: itself, or its bridge.
func (c *Snapshot) holder(l Link) Link {
	for _, o := range c.Links {
		if o.Index == l.Master && o.Kind == "bridge" {
			return o
		}
	}
	return l
}
