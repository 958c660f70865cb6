package rtnetlink

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Hook is a place in the qdisc clsact where filters look at an interface's packets (tc-bpf(8)).
type Hook uint32

// The hooks: TC_H_MAKE(TC_H_CLSACT, …), uapi/linux/pkt_sched.h.
const (
	Ingress Hook = 0xfffffff2
	Egress  Hook = 0xfffffff3
)

const (
	clsact       = 0xfffffff1 // TC_H_CLSACT
	clsactHandle = 0xffff0000
)

// BPFFilter is a filter of tc that is a program of BPF.
type BPFFilter struct {
	Link     int // the interface's index
	Hook     Hook
	Priority uint16
	Name     string
	Program  int // its descriptor; not needed to delete the filter
}

// Attributes of filters, uapi/linux/pkt_cls.h.
const (
	bpfFD        = 6 // TCA_BPF_FD
	bpfName      = 7 // TCA_BPF_NAME
	bpfFlags     = 8 // TCA_BPF_FLAGS
	bpfActDirect = 1 // TCA_BPF_FLAG_ACT_DIRECT: what the program returns is the verdict
	bpfHandle    = 1
)

const sizeofTcMsg = 20

// tcHeader is a struct tcmsg: family, padding, interface, handle, parent, info.
func tcHeader(link int, handle, parent, info uint32) *message {
	b := binary.NativeEndian.AppendUint32(make([]byte, 4, sizeofTcMsg), uint32(link))
	b = binary.NativeEndian.AppendUint32(b, handle)
	b = binary.NativeEndian.AppendUint32(b, parent)
	return newMessage(binary.NativeEndian.AppendUint32(b, info))
}

// HasClsact reports whether the interface has the qdisc that has the hooks.
func (c *Conn) HasClsact(link int) (has bool, err error) {
	err = c.dump(unix.RTM_GETQDISC, tcHeader(0, 0, 0, 0), func(b []byte) error {
		return parse(b, sizeofTcMsg, func(ad *netlink.AttributeDecoder) {
			if ad.Type() == unix.TCA_KIND && ad.String() == "clsact" && int(native32(b[4:])) == link {
				has = true
			}
		})
	})
	return has, err
}

// AddClsact gives the interface the qdisc that has the hooks; that it has one is unix.EEXIST.
func (c *Conn) AddClsact(link int) error {
	m := tcHeader(link, clsactHandle, clsact, 0)
	m.attributes.String(unix.TCA_KIND, "clsact")
	return c.set(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m)
}

// DeleteClsact removes that qdisc with all filters.
func (c *Conn) DeleteClsact(link int) error {
	m := tcHeader(link, clsactHandle, clsact, 0)
	m.attributes.String(unix.TCA_KIND, "clsact")
	return c.set(unix.RTM_DELQDISC, 0, m)
}

// AddFilter adds the filter, for packets of all protocols; that there is one of the priority at the
// hook is unix.EEXIST.
func (c *Conn) AddFilter(f BPFFilter) error {
	m := f.message()
	m.attributes.Nested(unix.TCA_OPTIONS, func(ae *netlink.AttributeEncoder) error {
		ae.Uint32(bpfFD, uint32(f.Program))
		ae.String(bpfName, f.Name)
		ae.Uint32(bpfFlags, bpfActDirect)
		return nil
	})
	return c.set(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m)
}

// DeleteFilter removes the filter of BPF with its priority; that there is none is unix.ENOENT or
// unix.EINVAL.
func (c *Conn) DeleteFilter(f BPFFilter) error { return c.set(unix.RTM_DELTFILTER, 0, f.message()) }

func (f BPFFilter) message() *message {
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	m := tcHeader(f.Link, bpfHandle, uint32(f.Hook), uint32(f.Priority)<<16|uint32(all))
	m.attributes.String(unix.TCA_KIND, "bpf")
	return m
}

// Filter is a filter of tc of any kind, as it is listed.
type Filter struct {
	Kind     string
	Priority uint16
	Name     string // of one of BPF
}

// Filters lists what the interface has at a hook. The kernel lists a kind with a priority before
// its filters, without a name.
func (c *Conn) Filters(link int, hook Hook) (all []Filter, err error) {
	err = c.dump(unix.RTM_GETTFILTER, tcHeader(link, 0, uint32(hook), 0), func(b []byte) error {
		var f Filter
		err := parse(b, sizeofTcMsg, func(ad *netlink.AttributeDecoder) {
			switch {
			case ad.Type() == unix.TCA_KIND:
				f.Kind = ad.String()
			case ad.Type() == unix.TCA_OPTIONS && f.Kind == "bpf":
				ad.Nested(func(ad *netlink.AttributeDecoder) error {
					for ad.Next() {
						if ad.Type() == bpfName {
							f.Name = ad.String()
						}
					}
					return nil
				})
			}
		})
		if err == nil {
			f.Priority = uint16(native32(b[16:]) >> 16)
			all = append(all, f)
		}
		return err
	})
	return all, err
}
