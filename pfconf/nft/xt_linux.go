package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
	"pfdivert/pfconf/xt"
)

// xtExpressions appends the rule as iptables-nft does: addresses and the protocol by nf_tables'
// own expressions, what it does by those of nft_compat.
func (r *request) xtExpressions(x xt.Rule) {
	if x.In != "" {
		r.Load("meta", unix.NFTA_META_KEY, unix.NFT_META_IIFNAME, unix.NFTA_META_DREG)
		r.Compare(unix.NFT_CMP_EQ, append([]byte(x.In), 0))
	}
	if x.From.IsValid() {
		r.address(x.From, 12, 8)
		r.address(x.To, 16, 24)
	}
	if x.Proto != 0 {
		ofProto{x.Proto}.encode(r)
	}
	for _, m := range x.Matches {
		r.extension("match", m)
	}
	counter{}.encode(r)
	switch {
	case x.Jump != "":
		jump{x.Jump}.encode(r)
	case x.Target.Name != "":
		r.extension("target", x.Target)
	case x.Verdict == xt.Accept:
		accept.encode(r)
	case x.Verdict == xt.Drop:
		drop.encode(r)
	case x.Verdict == xt.Return:
		code := int32(unix.NFT_RETURN)
		r.Verdict(uint32(code), "")
	}
}

// extension appends an extension of x_tables, whose attributes have the same numbers for matches
// and targets.
func (r *request) extension(kind string, e xt.Extension) {
	data := make([]byte, xt.Align(len(e.Data)))
	copy(data, e.Data)
	r.Expression(kind, func() {
		r.AttrString(unix.NFTA_TARGET_NAME, e.Name)
		r.Attr32(unix.NFTA_TARGET_REV, uint32(e.Revision))
		r.Attr(unix.NFTA_TARGET_INFO, data)
	})
}

// inOwnChain reports whether a message is about a rule in one of this program's chains of x_tables.
func inOwnChain(m netlink.Message) bool {
	return strings.HasPrefix(zeroed(m, unix.NFTA_RULE_CHAIN), xtPrefix)
}

// jumpsToOwn reports whether it is about one that jumps there.
func jumpsToOwn(m netlink.Message) bool {
	for _, e := range netlink.Attributes(netlink.Attribute(attributesOf(m), unix.NFTA_RULE_EXPRESSIONS)) {
		data := netlink.Attribute(netlink.Attribute(e, unix.NFTA_EXPR_DATA), unix.NFTA_IMMEDIATE_DATA)
		to := netlink.Attribute(netlink.Attribute(data, unix.NFTA_DATA_VERDICT), unix.NFTA_VERDICT_CHAIN)
		if strings.HasPrefix(string(to), xtPrefix) {
			return true
		}
	}
	return false
}

// hook makes the chains of iptables' table that are not there, and this program's below them; with
// apart nothing leads to these.
func (r *request) hook(apart bool, all ...hooked) (first uint32) {
	first = r.newTable(all[0].hook.table, unix.NLM_F_CREATE)
	for _, h := range all {
		r.newChain(h.hook)
		r.newChain(chain{table: h.hook.table, name: h.own})
		if !apart {
			r.newRule(kernelRule{chain: h.hook, xt: &xt.Rule{Jump: h.own}}, 0)
		}
	}
	return first
}

// xtTables are the tables of nf_tables in which a family's rules of x_tables are.
func xtTables(f pfconf.Family) [][]hooked { return [][]hooked{mangled(f), natted(f)} }

// addXT makes the chains for rules of x_tables; step journals what it makes.
func (f *Firewall) addXT(family pfconf.Family) error {
	for i, hooks := range xtTables(family) {
		t := hooks[0].hook.table
		there, err := f.host.chainsOf(t)
		if err != nil {
			return err
		}
		undo := pfconf.Undo{Do: undoXT, Args: []string{family.String(), t.name}}
		for _, h := range hooks {
			if !slices.Contains(there, h.hook.name) {
				undo.Args = append(undo.Args, h.hook.name)
			}
			if slices.Contains(there, h.own) {
				return &TakenError{fmt.Sprintf("chain %s in table %v", h.own, t)}
			}
		}
		if there == nil {
			undo.Args = append(undo.Args, wholeTable)
		}
		err = f.step(undo, func() error {
			if i > 0 {
				return nil // made with the first rule that needs it: a kernel may be without NAT
			}
			s := f.host.nf
			s.mu.Lock()
			defer s.mu.Unlock()
			r := s.transaction()
			r.hook(f.config.omits(Jump6) && family == pfconf.Inet6, hooks...)
			return wrap("create chains in table "+t.String(), s.commitAll(r))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// wholeTable stands among an Undo's chains for the table itself.
const wholeTable = "*"

// chainsOf lists a table's chains; nil if there is no such table.
func (h *host) chainsOf(t table) (names []string, err error) {
	h.nf.mu.Lock()
	defer h.nf.mu.Unlock()
	for {
		names = nil
		r := h.nf.request()
		r.nft(t.family, unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP)
		err := h.nf.Dump(r.Request, func(m netlink.Message) error {
			if zeroed(m, unix.NFTA_TABLE_NAME) == t.name {
				names = []string{}
			}
			return nil
		})
		if err == nil && names != nil {
			r = h.nf.request()
			r.nft(t.family, unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP)
			err = h.nf.Dump(r.Request, func(m netlink.Message) error {
				if zeroed(m, unix.NFTA_CHAIN_TABLE) == t.name {
					names = append(names, zeroed(m, unix.NFTA_CHAIN_NAME))
				}
				return nil
			})
		}
		if !errors.Is(err, netlink.ErrInterrupted) {
			return names, wrap("list the chains of table "+t.String(), err)
		}
	}
}

// zeroed is an attribute of a message: text that ends with a zero.
func zeroed(m netlink.Message, kind uint16) string {
	return strings.TrimRight(string(netlink.Attribute(attributesOf(m), kind)), "\x00")
}

// delXT removes this program's chains and the rules that jump to them from iptables' table, and
// then those of its chains that this program made, unless another process has rules there.
func (h *host) delXT(t table, made []string) error {
	there, err := h.chainsOf(t)
	if err != nil || there == nil {
		return err
	}
	h.nf.mu.Lock()
	defer h.nf.mu.Unlock()
	var jumps []placed
	err = h.nf.dumpRules(true, func(m netlink.Message) {
		if k, err := keyOf(m); err == nil && k.table == t && jumpsToOwn(m) {
			at := chain{table: t, name: zeroed(m, unix.NFTA_RULE_CHAIN)}
			jumps = append(jumps, placed{chain: at, handle: k.handle})
		}
	})
	if err != nil {
		return err
	}
	r := h.nf.transaction()
	for _, p := range jumps {
		r.delRule(p)
	}
	for _, name := range there {
		if strings.HasPrefix(name, xtPrefix) {
			r.delChain(chain{table: t, name: name}, 0)
		}
	}
	errs := []error{absent(h.nf.commitAll(r))}
	for _, name := range made {
		r := h.nf.transaction()
		if name == wholeTable {
			r.delTable(t, unix.NLM_F_NONREC)
		} else {
			r.delChain(chain{table: t, name: name}, unix.NLM_F_NONREC)
		}
		if err := absent(h.nf.commitAll(r)); !errors.Is(err, unix.EBUSY) {
			errs = append(errs, err)
		}
	}
	return wrap("remove the chains of this program from table "+t.String(), errors.Join(errs...))
}
