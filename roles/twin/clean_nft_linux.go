package twin

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// What follows makes of an object that was read one that can be made: without what the kernel gives
// it. Two of the same are equal then, which is how the copy is compared with the host.

func cleanTable(all attrs) attrs {
	// A table of an owner goes with its owner, and no one else may change it.
	return withoutFlag(all.without(nftaTableHandle, unix.NFTA_TABLE_USE, nftaTablePad, nftaTableOwner),
		unix.NFTA_TABLE_FLAGS, tableOwner)
}

func cleanChain(all attrs) attrs {
	return withoutFlag(all.without(unix.NFTA_CHAIN_HANDLE, unix.NFTA_CHAIN_USE, nftaChainPad, nftaChainID,
		unix.NFTA_CHAIN_COUNTERS),
		nftaChainFlags, chainOffload)
}

func cleanObject(all attrs) attrs {
	return all.without(nftaObjHandle, unix.NFTA_OBJ_USE, nftaObjPad)
}

func cleanSet(all attrs) attrs {
	return all.without(unix.NFTA_SET_ID, nftaSetHandle, nftaSetPad, nftaSetType, nftaSetCount)
}

// cleanElements takes the time-outs from the ends of intervals, which are listed with one and
// refused with it.
func cleanElements(all attrs) (attrs, error) {
	elements, err := all.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	if err != nil {
		return nil, err
	}
	var some attrs
	for _, e := range elements {
		about, err := split(e.data, 0)
		if err != nil {
			return nil, err
		}
		if net32(about.get(unix.NFTA_SET_ELEM_FLAGS))&unix.NFT_SET_ELEM_INTERVAL_END != 0 {
			e.data = about.without(unix.NFTA_SET_ELEM_TIMEOUT, unix.NFTA_SET_ELEM_EXPIRATION).bytes()
		}
		some = append(some, e)
	}
	return all.without(unix.NFTA_SET_ELEM_LIST_ELEMENTS).with(unix.NFTA_SET_ELEM_LIST_ELEMENTS|nestedFlag,
		some.bytes()), nil
}

func cleanFlowtable(all attrs) attrs {
	return withoutFlag(all.without(nftaFlowtableHandle, nftaFlowtableUse, nftaFlowtablePad), nftaFlowtableFlags, 1)
}

// Attributes that golang.org/x/sys lacks.
const (
	nftaTableHandle     = 4
	nftaTablePad        = 5
	nftaTableOwner      = 7
	nftaChainPad        = 9
	nftaChainID         = 11
	nftaObjHandle       = 6
	nftaObjPad          = 7
	nftaSetPad          = 14
	nftaSetHandle       = 16
	nftaFlowtableName   = 2
	nftaFlowtableUse    = 4
	nftaFlowtableHandle = 5
	nftaFlowtablePad    = 6
	nftaFlowtableFlags  = 7
	nftaExthdrFlags     = 5
	nftaExthdrSreg      = 7
)

// withoutFlag clears a bit of an attribute.
func withoutFlag(all attrs, kind uint16, flag uint32) attrs {
	some := make(attrs, len(all))
	for i, a := range all {
		if a.kind() == kind && len(a.data) == 4 {
			a.data = binary.BigEndian.AppendUint32(nil, net32(a.data)&^flag)
		}
		some[i] = a
	}
	return some
}

// cleanRule is a rule that can be made, with the names of the sets and chains that it uses.
func cleanRule(all attrs) (rule attrs, uses []string, err error) {
	list, err := all.nest(unix.NFTA_RULE_EXPRESSIONS)
	if err != nil {
		return nil, nil, err
	}
	rule = attrs{{unix.NFTA_RULE_TABLE, all.get(unix.NFTA_RULE_TABLE)},
		{unix.NFTA_RULE_CHAIN, all.get(unix.NFTA_RULE_CHAIN)}}
	var some attrs
	var protocol, loaded uint32
	compat := false
	for _, e := range list {
		about, err := split(e.data, 0)
		if err != nil {
			return nil, nil, err
		}
		data, err := about.nest(unix.NFTA_EXPR_DATA)
		if err != nil {
			return nil, nil, err
		}
		was := loaded
		loaded = 0
		switch name := text(about.get(unix.NFTA_EXPR_NAME)); name {
		case "meta":
			if net32(data.get(unix.NFTA_META_KEY)) == unix.NFT_META_L4PROTO {
				loaded = net32(data.get(unix.NFTA_META_DREG))
			}
		case "payload":
			// The protocol of IPv4's header, the next header of IPv6's.
			offset := net32(data.get(unix.NFTA_PAYLOAD_OFFSET))
			if net32(data.get(unix.NFTA_PAYLOAD_BASE)) == unix.NFT_PAYLOAD_NETWORK_HEADER &&
				net32(data.get(unix.NFTA_PAYLOAD_LEN)) == 1 && (offset == 9 || offset == 6) {
				loaded = net32(data.get(unix.NFTA_PAYLOAD_DREG))
			}
		case "cmp":
			value, err := data.nest(unix.NFTA_CMP_DATA)
			if err != nil {
				return nil, nil, err
			}
			if v := value.get(unix.NFTA_DATA_VALUE); was != 0 && len(v) == 1 &&
				net32(data.get(unix.NFTA_CMP_SREG)) == was && net32(data.get(unix.NFTA_CMP_OP)) == unix.NFT_CMP_EQ {
				protocol = uint32(v[0])
			}
		case "match", "target":
			if logs(name, text(data.get(unix.NFTA_TARGET_NAME))) {
				continue
			}
			compat = true
		case "log":
			if !data.has(unix.NFTA_LOG_GROUP) {
				continue // it would write to the host's log
			}
		case "exthdr":
			if data.has(nftaExthdrSreg) { // one that writes is listed with flags, and refused with them
				e = attr{e.flagged, attrs{
					{unix.NFTA_EXPR_NAME, about.get(unix.NFTA_EXPR_NAME)},
					{unix.NFTA_EXPR_DATA | nestedFlag, data.without(nftaExthdrFlags).bytes()},
				}.bytes()}
			}
		case "lookup":
			uses = append(uses, text(data.get(unix.NFTA_LOOKUP_SET)))
		case "dynset":
			uses = append(uses, text(data.get(unix.NFTA_DYNSET_SET_NAME)))
		case "objref":
			if set := data.get(unix.NFTA_OBJREF_SET_NAME); set != nil {
				uses = append(uses, text(set))
			}
		case "immediate":
			value, err := data.nest(unix.NFTA_IMMEDIATE_DATA)
			if err != nil {
				return nil, nil, err
			}
			verdict, err := value.nest(unix.NFTA_DATA_VERDICT)
			if err != nil {
				return nil, nil, err
			}
			if chain := verdict.get(unix.NFTA_VERDICT_CHAIN); chain != nil {
				uses = append(uses, text(chain))
			}
		}
		some = append(some, e)
	}
	rule = append(rule, attr{unix.NFTA_RULE_EXPRESSIONS | nestedFlag, some.bytes()})
	if compat { // it is not listed, and extensions ask it for the protocol
		rule = append(rule, attr{unix.NFTA_RULE_COMPAT | nestedFlag, attrs{
			{unix.NFTA_RULE_COMPAT_PROTO, binary.BigEndian.AppendUint32(nil, protocol)},
			{unix.NFTA_RULE_COMPAT_FLAGS, make([]byte, 4)},
		}.bytes()})
	}
	if data := all.get(unix.NFTA_RULE_USERDATA); data != nil {
		rule = append(rule, attr{unix.NFTA_RULE_USERDATA, data})
	}
	return rule, uses, nil
}

// logs reports whether an extension of iptables writes to the host's log, or changes what is the
// machine's and no namespace's. All of them go on with the next rule.
func logs(kind, name string) bool {
	switch name {
	case "LOG", "AUDIT", "IDLETIMER", "LED":
		return kind == "target"
	}
	return false
}
