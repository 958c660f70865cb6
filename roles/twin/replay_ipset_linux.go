package twin

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes inside of IPSET_ATTR_DATA, of a set's head and of its elements.
const (
	ipsetIP          = 1
	ipsetIPTo        = 2
	ipsetDataTimeout = 6
	ipsetDataLine    = 9

	ipsetHeadElements   = 24
	ipsetHeadReferences = 25
	ipsetHeadMemory     = 26

	ipsetIP2         = 20
	ipsetIP2To       = 22
	ipsetDataBytes   = 24
	ipsetDataPackets = 25
)

// cleanIPSet is a set's head without what the kernel says of its present state.
func cleanIPSet(data attrs) attrs {
	return netOrder(data.without(ipsetHeadElements, ipsetHeadReferences, ipsetHeadMemory), ipsetIP, ipsetIPTo)
}

// cleanEntry is an element as it can be added.
func cleanEntry(e attrs) attrs {
	return netOrder(e.without(ipsetDataLine), ipsetIP, ipsetIPTo, ipsetIP2, ipsetIP2To)
}

// netOrder says of addresses, inside of attributes of the kinds, that they are in network order: the
// kernel asks for that and does not say it itself.
func netOrder(all attrs, kinds ...uint16) attrs {
	some := slices.Clone(all)
	for i, a := range some {
		if !slices.Contains(kinds, a.kind()) {
			continue
		}
		inner, err := split(a.data, 0)
		if err != nil {
			continue // of another layout: the kernel refuses it
		}
		inner = slices.Clone(inner)
		for j := range inner {
			inner[j].flagged |= netOrderFlag
		}
		some[i] = attr{a.kind() | nestedFlag, inner.bytes()}
	}
	return some
}

// maxIPSets bounds the indexes of sets: gaps between them are filled for a moment.
const maxIPSets = 4096

// ipsets copies the sets of ipset, each with the index that it has on the host: rules name it by that.
func (r *replay) ipsets() error {
	if len(r.Sets) == 0 {
		return nil
	}
	heads, entries := map[string]attrs{}, map[string][]attrs{}
	for _, m := range r.Sets {
		all, err := split(m.Data, 4)
		if err != nil {
			return err
		}
		name := text(all.get(ipsetAttrSetName))
		if all.has(ipsetAttrTypeName) {
			heads[name] = all
		}
		list, err := all.nest(ipsetAttrADT)
		if err != nil {
			return err
		}
		if len(list) > 0 {
			entries[name] = append(entries[name], list)
		}
	}
	sets := slices.Clone(r.IPSets)
	slices.SortStableFunc(sets, func(a, b *IPSet) int { return int(a.Index) - int(b.Index) })
	if last := sets[len(sets)-1]; last.Index >= maxIPSets {
		r.lack("ipset", "sets with indexes up to %d", last.Index)
		return nil
	}
	var requests []request
	var texts []string
	send := func(command uint16, flags netlink.HeaderFlags, text string, more attrs) {
		data := appendAttr([]byte{unix.NFPROTO_IPV4, unix.NFNETLINK_V0, 0, 0}, ipsetAttrProtocol, []byte{ipsetProtocol})
		requests = append(requests, request{unix.NFNL_SUBSYS_IPSET<<8 | command, flags, more.append(data)})
		texts = append(texts, text)
	}
	create := func(name string, head attrs) {
		data, err := head.nest(ipsetAttrData)
		if err != nil {
			return
		}
		send(ipsetCmdCreate, netlink.Create|netlink.Excl, "set "+name, attrs{
			{ipsetAttrSetName, zero(name)}, {ipsetAttrTypeName, head.get(ipsetAttrTypeName)}, {ipsetAttrRevision, head.get(ipsetAttrRevision)},
			{ipsetAttrFamily, head.get(ipsetAttrFamily)}, {ipsetAttrData | nestedFlag, cleanIPSet(data).bytes()},
		})
	}
	var fillers []string
	next := 0
	for _, s := range sets {
		for ; next < int(s.Index); next++ {
			fillers = append(fillers, fmt.Sprintf("pfdivert-%d", next))
			create(fillers[len(fillers)-1], heads[s.Name])
		}
		create(s.Name, heads[s.Name])
		next++
	}
	for _, name := range fillers {
		send(ipsetCmdDestroy, 0, "set "+name, attrs{{ipsetAttrSetName, zero(name)}})
	}
	// A list of sets names others.
	slices.SortStableFunc(sets, func(a, b *IPSet) int { return b2i(a.Type == "list:set") - b2i(b.Type == "list:set") })
	for _, s := range sets {
		for _, list := range entries[s.Name] {
			some := make(attrs, 0, len(list))
			for _, e := range list {
				one, err := split(e.data, 0)
				if err != nil {
					return err
				}
				some = append(some, attr{ipsetAttrData | nestedFlag, cleanEntry(one).bytes()})
			}
			send(ipsetCmdAdd, 0, fmt.Sprintf("elements of set %s", s.Name), attrs{
				{ipsetAttrSetName, zero(s.Name)}, {ipsetAttrLineNo, native(0)}, {ipsetAttrADT | nestedFlag, some.bytes()},
			})
		}
	}
	c, err := dial(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	failed, err := performAll(r.ctx, c, requests)
	for i := range requests {
		if failed[i] != nil {
			r.lack("ipset", "%s: %v", texts[i], ipsetError(failed[i]))
		}
	}
	return err
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ipsetError names an error that is ipset's own: those begin at 4096 (enum ipset_errno).
func ipsetError(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) && number >= 4096 {
		return fmt.Errorf("error %d of ipset", int(number))
	}
	return err
}
