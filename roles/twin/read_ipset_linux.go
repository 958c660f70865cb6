package twin

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Commands and attributes of ipset (linux/netfilter/ipset/ip_set.h).
const (
	ipsetProtocol = 7 // of Linux 4.20: it lists the sets' indexes

	ipsetCmdCreate  = 2
	ipsetCmdDestroy = 3
	ipsetCmdList    = 7
	ipsetCmdAdd     = 9

	ipsetAttrProtocol = 1
	ipsetAttrSetName  = 2
	ipsetAttrTypeName = 3
	ipsetAttrRevision = 4
	ipsetAttrFamily   = 5
	ipsetAttrData     = 7
	ipsetAttrADT      = 8
	ipsetAttrLineNo   = 9
	ipsetAttrIndex    = 11
)

// readIPSets reads the sets of ipset(8).
func (d *Dump) readIPSets(ctx context.Context) error {
	if ok, err := netlinkHas(unix.NETLINK_NETFILTER); err != nil || !ok {
		return err
	}
	if ok, err := ipSet.there(); err != nil || !ok {
		return err
	}
	c, err := dial(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	d.Sets, err = netfilterDump(ctx, c, unix.NFNL_SUBSYS_IPSET, ipsetCmdList, unix.NFPROTO_IPV4,
		appendAttr(nil, ipsetAttrProtocol, []byte{ipsetProtocol}))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // nfnetlink knows no ipset
	}
	return err
}

// decodeIPSets makes sets of the messages of ipset. A set comes in one message or several, each
// with the set's name and some of its elements.
func (c *Snapshot) decodeIPSets() error {
	sets := map[string]*IPSet{}
	for _, m := range c.Sets {
		all, err := split(m.Data, 4)
		if err != nil {
			return fmt.Errorf("ipset: %w", err)
		}
		name := text(all.get(ipsetAttrSetName))
		s := sets[name]
		if s == nil {
			s = &IPSet{Name: name}
			sets[name] = s
			c.IPSets = append(c.IPSets, s)
		}
		if all.has(ipsetAttrTypeName) {
			s.Type, s.Family = text(all.get(ipsetAttrTypeName)), uint8(host32(all.get(ipsetAttrFamily)))
			s.Index = uint16(net32(all.get(ipsetAttrIndex)))
		}
		elements, err := all.nest(ipsetAttrADT)
		if err != nil {
			return fmt.Errorf("ipset: %s: %w", name, err)
		}
		s.Elements += len(elements)
	}
	return nil
}
