package twin

import (
	"bytes"
	"encoding/binary"
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

	ipsetHeadElements   = 24
	ipsetHeadReferences = 25
	ipsetHeadMemory     = 26

	ipsetIP2         = 20
	ipsetIP2To       = 22
	ipsetDataBytes   = 24
	ipsetDataPackets = 25
)

// cleanIPSet is a set's head without what the kernel says of its present state.
func cleanIPSet(data attrs) []byte {
	b := data.without(ipsetHeadElements, ipsetHeadReferences, ipsetHeadMemory).bytes()
	netOrder(b, ipsetIP, ipsetIPTo)
	return b
}

// netOrder says of addresses, inside of attributes of the kinds, that they are in network order:
// the kernel asks for that and does not say it itself. It changes the attributes in place, as there
// may be many; of another layout they stay as they are, and the kernel refuses them.
func netOrder(b []byte, kinds ...uint16) {
	next := func(b []byte) (size int, kind uint16, ok bool) {
		if len(b) < 4 {
			return 0, 0, false
		}
		size, kind = int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		return size, kind, size >= 4 && size <= len(b)
	}
	for {
		size, kind, ok := next(b)
		if !ok {
			return
		}
		if slices.Contains(kinds, attr{flagged: kind}.kind()) {
			binary.NativeEndian.PutUint16(b[2:], kind|nestedFlag)
			if _, inner, ok := next(b[4:size]); ok {
				binary.NativeEndian.PutUint16(b[6:], inner|netOrderFlag)
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
}

// maxIPSets bounds the indexes of sets: gaps between them are filled for a moment.
const maxIPSets = 4096

// ipsets copies the sets of ipset, each with the index that it has on the host: rules name it by
// that.
func (r *replay) ipsets() error {
	if len(r.Sets) == 0 {
		return nil
	}
	heads, entries := map[string]attrs{}, map[string][][]byte{}
	for _, m := range r.Sets {
		all, err := split(m.Data, 4)
		if err != nil {
			return err
		}
		name := text(all.get(ipsetAttrSetName))
		if all.has(ipsetAttrTypeName) {
			heads[name] = all
		}
		if list := all.get(ipsetAttrADT); len(list) > 0 {
			entries[name] = append(entries[name], list)
		}
	}
	sets := slices.Clone(r.IPSets)
	sortStable(sets, func(a, b *IPSet) int { return int(a.Index) - int(b.Index) })
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
			{ipsetAttrSetName, zero(name)}, {ipsetAttrTypeName, head.get(ipsetAttrTypeName)},
			{ipsetAttrRevision, head.get(ipsetAttrRevision)},
			{ipsetAttrFamily, head.get(ipsetAttrFamily)}, {ipsetAttrData | nestedFlag, cleanIPSet(data)},
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
	sortStable(sets, func(a, b *IPSet) int { return b2i(a.Type == "list:set") - b2i(b.Type == "list:set") })
	for _, s := range sets {
		for _, list := range entries[s.Name] {
			list = bytes.Clone(list)
			elements, err := split(list, 0)
			if err != nil {
				return err
			}
			for _, e := range elements {
				netOrder(e.data, ipsetIP, ipsetIPTo, ipsetIP2, ipsetIP2To)
			}
			send(ipsetCmdAdd, 0, fmt.Sprintf("elements of set %s", s.Name), attrs{
				{ipsetAttrSetName, zero(s.Name)}, {ipsetAttrLineNo, native(0)}, {ipsetAttrADT | nestedFlag, list},
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
