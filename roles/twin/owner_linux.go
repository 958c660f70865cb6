package twin

import (
	"bytes"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// OneOwner reports whether this process can have sockets of one owner alone: an ordinary user in a
// user namespace, where it is root and no one else is there.
func OneOwner() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false // the kernel has no user namespaces
	}
	f := strings.Fields(string(b)) // first inside, first outside, count
	return len(f) == 3 && f[2] == "1"
}

// As is the configuration for a process that has one owner, 0, which stands for a user and group of
// the host: what rules ask of the owner of a socket is what they would find if it were that one's.
func (c *Snapshot) As(uid, gid uint32) (*Snapshot, error) {
	d := c.Dump
	d.NFT, d.Legacy, d.Rules = nil, nil, nil
	for _, m := range c.NFT {
		if m.Type&0xff == unix.NFT_MSG_NEWRULE {
			var err error
			if m.Data, err = ruleAs(m.Data, uid, gid); err != nil {
				return nil, err
			}
		}
		d.NFT = append(d.NFT, m)
	}
	for _, t := range c.Legacy {
		as := LegacyTable{t.IPv6, t.Name, t.Info, bytes.Clone(t.Entries)}
		if err := as.each(func(e []byte, _ string) error {
			as.matches(e, func(name string, data []byte) {
				if name == "owner" {
					ownerAs(data, uid, gid)
				}
			})
			return nil
		}); err != nil {
			return nil, err
		}
		d.Legacy = append(d.Legacy, as)
	}
	for i, r := range c.PolicyRules {
		m := c.Dump.Rules[i]
		if r.HasUIDs {
			if uid < r.UIDFirst || uid > r.UIDLast {
				continue
			}
			all, err := split(m, unix.SizeofRtMsg)
			if err != nil {
				return nil, err
			}
			m = all.without(unix.FRA_UID_RANGE).with(unix.FRA_UID_RANGE,
				make([]byte, 8)).append(bytes.Clone(m[:unix.SizeofRtMsg]))
		}
		d.Rules = append(d.Rules, m)
	}
	return decode(&d)
}

// owner is a user and a group that have a socket.
type owner struct{ uid, gid uint32 }

// ownerOf is the owner whom rules should see behind a flow: its sender's if that is the host, else
// that of the socket that it is for.
func (c *Snapshot) ownerOf(f Flow) owner {
	if f.Local() {
		return owner{f.UID, f.GID}
	}
	p := &planner{Snapshot: c, hints: c.hints()}
	for _, s := range c.Sockets {
		if s.Proto == f.Proto && (f.Kind == Service && s.Local.Port() == f.To.Port() || f.Kind != Service &&
			p.hints.listens(s)) {
			return owner{s.UID, s.GID}
		}
	}
	return owner{}
}

// perOwner calls f with all flows, or where there is but one owner with those of each owner in
// turn, and with the configuration as that owner's sockets find it. The results are in the order of
// the flows.
func perOwner[R any](c *Snapshot, flows []Flow, f func(as *Snapshot, some []Flow) ([]R, error)) ([]R, error) {
	if !OneOwner() {
		return f(c, flows)
	}
	results := make([]R, len(flows))
	groups := map[owner][]int{}
	var order []owner
	for i, flow := range flows {
		o := c.ownerOf(flow)
		if groups[o] == nil {
			order = append(order, o)
		}
		groups[o] = append(groups[o], i)
	}
	for _, o := range order {
		as, err := c.As(o.uid, o.gid)
		if err != nil {
			return nil, err
		}
		some := make([]Flow, len(groups[o]))
		for i, n := range groups[o] {
			some[i] = flows[n]
		}
		got, err := f(as, some)
		if err != nil || got == nil {
			return nil, err
		}
		for i, n := range groups[o] {
			results[n] = got[i]
		}
	}
	return results, nil
}

// ruleAs is the message of a rule of nf_tables whose conditions find another owner than the
// socket's. The owner is still loaded, since there is none without a socket, and then overwritten.
func ruleAs(m []byte, uid, gid uint32) ([]byte, error) {
	all, err := split(m, 4)
	if err != nil {
		return nil, err
	}
	list, err := all.nest(unix.NFTA_RULE_EXPRESSIONS)
	if err != nil {
		return nil, err
	}
	var some attrs
	for _, e := range list {
		about, err := split(e.data, 0)
		if err != nil {
			return nil, err
		}
		data, err := about.nest(unix.NFTA_EXPR_DATA)
		if err != nil {
			return nil, err
		}
		switch name := text(about.get(unix.NFTA_EXPR_NAME)); name {
		case "meta":
			some = append(some, e)
			key := net32(data.get(unix.NFTA_META_KEY))
			if key != unix.NFT_META_SKUID && key != unix.NFT_META_SKGID || !data.has(unix.NFTA_META_DREG) {
				continue
			}
			id := map[bool]uint32{true: uid, false: gid}[key == unix.NFT_META_SKUID]
			some = append(some, attr{1, attrs{ // NFTA_LIST_ELEM; like the kernel's own, it is not marked as nested
				{unix.NFTA_EXPR_NAME, zero("immediate")},
				{unix.NFTA_EXPR_DATA, attrs{
					{unix.NFTA_IMMEDIATE_DREG, data.get(unix.NFTA_META_DREG)},
					{unix.NFTA_IMMEDIATE_DATA, appendAttr(nil, unix.NFTA_DATA_VALUE, native(id))},
				}.bytes()},
			}.bytes()})
		case "match":
			if text(data.get(unix.NFTA_MATCH_NAME)) == "owner" {
				info := bytes.Clone(data.get(unix.NFTA_MATCH_INFO))
				ownerAs(info, uid, gid)
				data = slices.Clone(data)
				for i := range data {
					if data[i].kind() == unix.NFTA_MATCH_INFO {
						data[i].data = info
					}
				}
				e.data = attrs{{unix.NFTA_EXPR_NAME, zero(name)}, {unix.NFTA_EXPR_DATA, data.bytes()}}.bytes()
			}
			some = append(some, e)
		default:
			some = append(some, e)
		}
	}
	all = slices.Clone(all)
	for i := range all {
		if all[i].kind() == unix.NFTA_RULE_EXPRESSIONS {
			all[i].data = some.bytes()
		}
	}
	return all.append(bytes.Clone(m[:4])), nil
}

// Flags of xt_owner (linux/netfilter/xt_owner.h).
const (
	ownerUID = 1
	ownerGID = 2
)

// ownerAs changes struct xt_owner_match_info, in place: uid_min, uid_max, gid_min, gid_max u32,
// match u8, invert u8. The kernel takes no ids that the namespace has not, so each question about
// an id becomes one about 0 that has the same answer.
func ownerAs(info []byte, uid, gid uint32) {
	if len(info) < 18 {
		return // of revision 0, which the kernel refuses
	}
	match, invert := info[16], info[17]
	for _, q := range []struct {
		flag byte
		at   int
		id   uint32
	}{{ownerUID, 0, uid}, {ownerGID, 8, gid}} {
		if match&q.flag == 0 {
			continue
		}
		in := host32(info[q.at:q.at+4]) <= q.id && q.id <= host32(info[q.at+4:q.at+8])
		clear(info[q.at : q.at+8])
		switch {
		case in: // so is 0
		case invert&q.flag != 0: // always true, whether there is a socket or not
			match, invert = match&^q.flag, invert&^q.flag
		default:
			// Never true: it asks for group 0 and not group 0 too, where the other question is not
			// needed any more.
			info[16], info[17] = ownerUID|ownerGID, ownerGID
			clear(info[:16])
			return
		}
	}
	info[16], info[17] = match, invert
}
