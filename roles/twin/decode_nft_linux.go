package twin

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// families are NFPROTO_* as nft writes them.
var families = map[byte]string{
	unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet",
	unix.NFPROTO_ARP: "arp", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev",
}

// decodeNFT makes tables of the messages of nf_tables.
func (c *Snapshot) decodeNFT() error {
	type key struct {
		family byte
		name   string
	}
	type inTable struct {
		table key
		name  string
	}
	tables, chains, sets := map[key]*Table{}, map[inTable]*Chain{}, map[inTable]*Set{}
	for _, m := range c.NFT {
		all, err := split(m.Data, 4)
		if err != nil {
			return fmt.Errorf("nf_tables: %w", err)
		}
		if families[m.Data[0]] == "" {
			return fmt.Errorf("nf_tables: family %d is not known", m.Data[0])
		}
		// NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, … are all 1.
		k := key{m.Data[0], text(all.get(unix.NFTA_TABLE_NAME))}
		t := tables[k]
		if m.Type&0xff == unix.NFT_MSG_NEWTABLE {
			if t != nil {
				return fmt.Errorf("nf_tables: table %s %s is there twice", families[k.family], k.name)
			}
			t = &Table{Family: families[k.family], Name: k.name, Flags: net32(all.get(unix.NFTA_TABLE_FLAGS))}
			tables[k] = t
			c.Tables = append(c.Tables, t)
			continue
		}
		if t == nil {
			return fmt.Errorf("nf_tables: something of table %s %s, which is not listed", families[k.family], k.name)
		}
		switch m.Type & 0xff {
		case unix.NFT_MSG_NEWCHAIN:
			chain, err := decodeChain(t, all)
			if err != nil {
				return fmt.Errorf("nf_tables: %w", err)
			}
			chains[inTable{k, chain.Name}] = chain
			t.Chains = append(t.Chains, chain)
		case unix.NFT_MSG_NEWRULE:
			name := text(all.get(unix.NFTA_RULE_CHAIN))
			chain := chains[inTable{k, name}]
			if chain == nil {
				return fmt.Errorf("nf_tables: a rule of chain %s, which is not listed", name)
			}
			rule := &ChainRule{Handle: net64(all.get(unix.NFTA_RULE_HANDLE)),
				UserData: all.get(unix.NFTA_RULE_USERDATA)}
			if rule.Exprs, err = decodeExprs(all.get(unix.NFTA_RULE_EXPRESSIONS)); err != nil {
				return fmt.Errorf("nf_tables: %w", err)
			}
			chain.Rules = append(chain.Rules, rule)
		case unix.NFT_MSG_NEWSET:
			s := &Set{
				Family: t.Family, Table: t.Name, Name: text(all.get(unix.NFTA_SET_NAME)),
				Flags:   net32(all.get(unix.NFTA_SET_FLAGS)),
				KeyType: net32(all.get(unix.NFTA_SET_KEY_TYPE)), KeyLen: net32(all.get(unix.NFTA_SET_KEY_LEN)),
				DataType: net32(all.get(unix.NFTA_SET_DATA_TYPE)),
			}
			for _, p := range c.Partial {
				s.Big = s.Big || p == SetName{k.family, k.name, s.Name}
			}
			sets[inTable{k, s.Name}] = s
			t.Sets = append(t.Sets, s)
		case unix.NFT_MSG_NEWSETELEM:
			name := text(all.get(unix.NFTA_SET_ELEM_LIST_SET))
			s := sets[inTable{k, name}]
			if s == nil {
				return fmt.Errorf("nf_tables: an element of set %s, which is not listed", name)
			}
			elements, err := decodeElements(all.get(unix.NFTA_SET_ELEM_LIST_ELEMENTS))
			if err != nil {
				return fmt.Errorf("nf_tables: set %s: %w", name, err)
			}
			s.Elements = append(s.Elements, elements...)
		case unix.NFT_MSG_NEWOBJ:
			t.Objects = append(t.Objects, Object{text(all.get(unix.NFTA_OBJ_NAME)), net32(all.get(unix.NFTA_OBJ_TYPE))})
		}
	}
	return nil
}

func decodeChain(t *Table, all attrs) (*Chain, error) {
	chain := &Chain{
		Family: t.Family, Table: t.Name, Name: text(all.get(unix.NFTA_CHAIN_NAME)),
		Handle: net64(all.get(unix.NFTA_CHAIN_HANDLE)),
		Flags:  net32(all.get(nftaChainFlags)), Type: text(all.get(unix.NFTA_CHAIN_TYPE)),
		Base:  all.has(unix.NFTA_CHAIN_HOOK),
		Drops: all.has(unix.NFTA_CHAIN_POLICY) && net32(all.get(unix.NFTA_CHAIN_POLICY)) == 0, // NF_DROP
	}
	hook, err := all.nest(unix.NFTA_CHAIN_HOOK)
	if err != nil {
		return nil, err
	}
	chain.Hook = int(net32(hook.get(unix.NFTA_HOOK_HOOKNUM)))
	chain.Priority = int32(net32(hook.get(unix.NFTA_HOOK_PRIORITY)))
	if dev := hook.get(unix.NFTA_HOOK_DEV); dev != nil {
		chain.Devices = append(chain.Devices, text(dev))
	}
	devices, err := hook.nest(nftaHookDevs)
	if err != nil {
		return nil, err
	}
	for _, dev := range devices {
		chain.Devices = append(chain.Devices, text(dev.data))
	}
	return chain, nil
}

// Attributes that golang.org/x/sys lacks.
const (
	nftaHookDevs      = 4  // NFTA_HOOK_DEVS
	nftaChainFlags    = 10 // NFTA_CHAIN_FLAGS
	nftaSetElemKeyEnd = 10 // NFTA_SET_ELEM_KEY_END
)

// decodeExprs reads a list of expressions (NFTA_LIST_ELEM).
func decodeExprs(b []byte) ([]Expr, error) {
	list, err := split(b, 0)
	if err != nil {
		return nil, err
	}
	exprs := make([]Expr, 0, len(list))
	for _, e := range list {
		about, err := split(e.data, 0)
		if err != nil {
			return nil, err
		}
		exprs = append(exprs, Expr{text(about.get(unix.NFTA_EXPR_NAME)), about.get(unix.NFTA_EXPR_DATA)})
	}
	return exprs, nil
}

func decodeElements(b []byte) ([]Element, error) {
	list, err := split(b, 0)
	if err != nil {
		return nil, err
	}
	elements := make([]Element, 0, len(list))
	for _, e := range list {
		about, err := split(e.data, 0)
		if err != nil {
			return nil, err
		}
		var some Element
		some.Flags = net32(about.get(unix.NFTA_SET_ELEM_FLAGS))
		some.End = some.Flags&elementEnd != 0
		some.Data = about.get(unix.NFTA_SET_ELEM_DATA)
		for _, k := range []struct {
			kind uint16
			to   *[]byte
		}{{unix.NFTA_SET_ELEM_KEY, &some.Key}, {nftaSetElemKeyEnd, &some.KeyEnd}} {
			key, err := about.nest(k.kind)
			if err != nil {
				return nil, err
			}
			*k.to = key.get(unix.NFTA_DATA_VALUE)
		}
		elements = append(elements, some)
	}
	return elements, nil
}
