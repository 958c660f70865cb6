package twin

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"
)

// spared is the dump as it goes into a snapshot: without what is no one's business.
func (c *Snapshot) spared() (*Dump, error) {
	d := c.Dump
	d.Links, d.Neighbors, d.NFT, d.Asked, d.Sets, d.Legacy = nil, nil, nil, nil, nil, nil
	for _, m := range c.Dump.Links {
		spared, err := spareLink(m)
		if err != nil {
			return nil, err
		}
		d.Links = append(d.Links, spared)
	}
	for _, list := range []struct{ from, to *[]NetlinkMessage }{{&c.NFT, &d.NFT}, {&c.Asked, &d.Asked}} {
		for _, m := range *list.from {
			data, err := spareNFT(m)
			if err != nil {
				return nil, err
			}
			*list.to = append(*list.to, NetlinkMessage{m.Type, data})
		}
	}
	for _, m := range c.Sets {
		all, err := split(m.Data, 4)
		if err != nil {
			return nil, err
		}
		elements, err := all.nest(ipsetAttrADT)
		if err != nil {
			return nil, err
		}
		if len(elements) > 0 {
			var some attrs
			for _, e := range elements {
				one, err := split(e.data, 0)
				if err != nil {
					return nil, err
				}
				const comment = 26 // IPSET_ATTR_COMMENT
				some = append(some, attr{e.flagged, one.without(comment).bytes()})
			}
			all = all.without(ipsetAttrADT).with(ipsetAttrADT|nestedFlag, some.bytes())
		}
		d.Sets = append(d.Sets, NetlinkMessage{m.Type, all.append(bytes.Clone(m.Data[:4]))})
	}
	for _, t := range c.Legacy {
		spared := LegacyTable{t.IPv6, t.Name, t.Info, bytes.Clone(t.Entries)}
		if err := spared.each(func(e []byte, _ string) error {
			spared.matches(e, func(name string, data []byte) { spareMatch(name, data) })
			return nil
		}); err != nil {
			return nil, err
		}
		d.Legacy = append(d.Legacy, spared)
	}
	d.NFT, d.Asked = c.spareCards(d.NFT), c.spareCards(d.Asked)
	return &d, nil
}

// spareCards takes the vendors out of the hardware addresses of the host and its neighbors where
// rules and sets of nf_tables name them.
func (c *Snapshot) spareCards(messages []NetlinkMessage) []NetlinkMessage {
	cards := [][]byte{}
	for _, l := range c.Links {
		cards = append(cards, l.MAC)
	}
	for _, n := range c.Neighbors {
		cards = append(cards, n.MAC)
	}
	var all []NetlinkMessage
	for _, m := range messages {
		for _, card := range cards {
			spared := bytes.Clone(card)
			if spareMAC(spared); !bytes.Equal(card, spared) {
				m.Data = bytes.ReplaceAll(m.Data, card, spared)
			}
		}
		all = append(all, m)
	}
	return all
}

// spareMAC takes the vendor out of a hardware address.
func spareMAC(mac []byte) {
	if len(mac) == 6 && mac[0]&3 == 0 && !bytes.Equal(mac, make([]byte, 6)) { // of a vendor, and of one station
		copy(mac, []byte{2, 0, 0})
	}
}

// spareMatch takes comments and vendors out of a match of iptables, in place.
func spareMatch(name string, data []byte) {
	switch name {
	case "comment":
		clear(data)
	case "mac":
		spareMAC(data[:min(6, len(data))])
	}
}

// spareLink keeps those attributes of a network device that a replay uses.
func spareLink(m []byte) ([]byte, error) {
	all, err := split(m, unix.SizeofIfInfomsg)
	if err != nil {
		return nil, err
	}
	var some attrs
	for _, a := range all {
		switch a.kind() {
		case unix.IFLA_IFNAME, unix.IFLA_MTU, unix.IFLA_LINK, unix.IFLA_LINK_NETNSID, unix.IFLA_MASTER, unix.IFLA_GROUP:
			some = append(some, a)
		case unix.IFLA_ADDRESS:
			mac := bytes.Clone(a.data)
			spareMAC(mac)
			if len(mac) == 4 || len(mac) == 16 { // the address of a tunnel's end, which is no part of the twin
				clear(mac)
			}
			some = append(some, attr{a.flagged, mac})
		case unix.IFLA_LINKINFO:
			info, err := split(a.data, 0)
			if err != nil {
				return nil, err
			}
			var kept attrs
			kind, port := text(info.get(unix.IFLA_INFO_KIND)), text(info.get(unix.IFLA_INFO_SLAVE_KIND))
			for _, i := range info {
				var keep []uint16
				switch {
				case i.kind() == unix.IFLA_INFO_KIND, i.kind() == unix.IFLA_INFO_SLAVE_KIND:
					kept = append(kept, i)
					continue
				case i.kind() == unix.IFLA_INFO_DATA && kind == "bridge":
					keep = append([]uint16{unix.IFLA_BR_VLAN_FILTERING}, bridgeAttributes...)
				case i.kind() == unix.IFLA_INFO_DATA && kind == "vrf":
					keep = []uint16{unix.IFLA_VRF_TABLE}
				case i.kind() == unix.IFLA_INFO_SLAVE_DATA && port == "bridge":
					keep = portAttributes
				default:
					continue
				}
				data, err := only(i.data, keep...)
				if err != nil {
					return nil, err
				}
				kept = append(kept, attr{i.flagged, data})
			}
			some = append(some, attr{a.flagged, kept.bytes()})
		case unix.IFLA_AF_SPEC:
			families, err := split(a.data, 0)
			if err != nil {
				return nil, err
			}
			var kept attrs
			for _, f := range families {
				switch f.kind() {
				case unix.AF_INET, unix.AF_INET6:
					data, err := only(f.data, map[uint16]uint16{unix.AF_INET: unix.IFLA_INET_CONF,
						unix.AF_INET6: unix.IFLA_INET6_CONF}[f.kind()])
					if err != nil {
						return nil, err
					}
					kept = append(kept, attr{f.flagged, data})
				}
			}
			some = append(some, attr{a.flagged, kept.bytes()})
		}
	}
	return some.append(bytes.Clone(m[:unix.SizeofIfInfomsg])), nil
}

// only are those attributes that are of the kinds.
func only(b []byte, kinds ...uint16) ([]byte, error) {
	all, err := split(b, 0)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(a attr) bool { return !slices.Contains(kinds, a.kind()) }).bytes(), nil
}

// userData are the attributes of nf_tables that hold comments, by message (NFTA_TABLE_USERDATA, …).
var userData = map[uint16]uint16{
	unix.NFT_MSG_NEWTABLE: 6, unix.NFT_MSG_NEWCHAIN: 12, unix.NFT_MSG_NEWSET: unix.NFTA_SET_USERDATA,
	unix.NFT_MSG_NEWOBJ: 8, unix.NFT_MSG_NEWRULE: unix.NFTA_RULE_USERDATA,
}

// spareNFT takes comments and vendors out of a message of nf_tables, and what the kernel says of
// itself.
func spareNFT(m NetlinkMessage) ([]byte, error) {
	all, err := split(m.Data, 4)
	if err != nil {
		return nil, err
	}
	message := m.Type & 0xff
	if kind := userData[message]; kind != 0 {
		all = all.without(kind)
	}
	head := bytes.Clone(m.Data[:4])
	switch message {
	case unix.NFT_MSG_NEWSET:
		all = all.without(nftaSetType)
	case unix.NFT_MSG_NEWSETELEM:
		elements, err := all.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		if err != nil {
			return nil, err
		}
		var some attrs
		for _, e := range elements {
			one, err := split(e.data, 0)
			if err != nil {
				return nil, err
			}
			some = append(some, attr{e.flagged, one.without(unix.NFTA_SET_ELEM_USERDATA).bytes()})
		}
		all = all.without(unix.NFTA_SET_ELEM_LIST_ELEMENTS).with(unix.NFTA_SET_ELEM_LIST_ELEMENTS|nestedFlag,
			some.bytes())
	case unix.NFT_MSG_NEWRULE:
		b := bytes.Clone(all.get(unix.NFTA_RULE_EXPRESSIONS))
		list, err := split(b, 0)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			about, err := split(e.data, 0)
			if err != nil {
				return nil, err
			}
			data, err := about.nest(unix.NFTA_EXPR_DATA)
			if err != nil {
				return nil, err
			}
			if text(about.get(unix.NFTA_EXPR_NAME)) == "match" {
				spareMatch(text(data.get(unix.NFTA_MATCH_NAME)), data.get(unix.NFTA_MATCH_INFO))
			}
		}
		var some attrs
		for _, a := range all {
			if a.kind() == unix.NFTA_RULE_EXPRESSIONS {
				a.data = b
			}
			some = append(some, a)
		}
		all = some
	}
	return all.append(head), nil
}
