package twin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notCloned names what the host has and a twin has not. It is called on the thread of the host's
// namespace.
func (c *Snapshot) notCloned(ctx context.Context) []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	stood := map[string][]string{}
	var xdp, vlans []string
	for _, l := range c.Links {
		if veth, _ := c.wired(l); veth && l.Kind != "" && l.Kind != "veth" {
			stood[l.Kind] = append(stood[l.Kind], l.Name)
		}
		raw := c.rawLink(l.Index)
		if x, err := raw.nest(unix.IFLA_XDP); err == nil && host32(x.get(unix.IFLA_XDP_ATTACHED)) != 0 {
			xdp = append(xdp, l.Name)
		}
		if info, err := raw.nest(unix.IFLA_LINKINFO); err == nil && l.Kind == "bridge" {
			if data, err := info.nest(unix.IFLA_INFO_DATA); err == nil &&
				host32(data.get(unix.IFLA_BR_VLAN_FILTERING)) != 0 {
				vlans = append(vlans, l.Name)
			}
		}
	}
	for _, kind := range slices.Sorted(mapKeys(stood)) {
		say("%s: what is special to devices of kind %s; in the twin a plain cable stands in", strings.Join(stood[kind], ", "), kind)
	}
	if len(vlans) > 0 {
		say("%s: VLAN filtering of the bridge", strings.Join(vlans, ", "))
	}
	if len(xdp) > 0 {
		say("%s: an XDP program sees packets first", strings.Join(xdp, ", "))
	}
	c.programs(ctx, say)
	if len(c.Queues) > 0 {
		say("%d queues of NFQUEUE with a program: in the twin all their packets are accepted", len(c.Queues))
	}
	if rows := procRows("ip_vs", 3); rows > 0 {
		say("services of IPVS")
	}
	if n := ipsecPolicies(ctx); n > 0 {
		say("%d policies of IPsec", n)
	}
	if c.asksCgroups() {
		say("rules that ask for a process's cgroup: stand-ins have this program's")
	}
	return all
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// procRows counts the lines of a file of /proc/net behind its head, 0 if there is none.
func procRows(name string, head int) int {
	text, err := procNet(name)
	if err != nil {
		return 0
	}
	return max(0, strings.Count(string(text), "\n")-head)
}

// programs says where programs of eBPF and classifiers of tc take part.
func (c *Snapshot) programs(ctx context.Context, say func(string, ...any)) {
	conn, err := dial(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return
	}
	defer conn.Close()
	var classified []string
	const tcmsg = 20 // struct tcmsg: family, pads, ifindex i32, handle, parent, info u32
	qdiscs, err := dump(ctx, conn, unix.RTM_GETQDISC, make([]byte, tcmsg))
	if err != nil {
		say("classifiers of tc, if there are any: %v", err)
	}
	for _, m := range qdiscs {
		all, err := split(m.Data, tcmsg)
		if err != nil {
			continue
		}
		if kind := text(all.get(unix.TCA_KIND)); kind == "clsact" || kind == "ingress" {
			if l := c.link(int(host32(m.Data[4:8]))); l != nil {
				classified = append(classified, l.Name)
			}
		}
	}
	var attached []string
	var refused error
	ask := func(what string, target int, kinds ...uint32) {
		for _, kind := range kinds {
			n, err := attachedPrograms(target, kind)
			switch {
			case n > 0:
				attached = append(attached, what)
				return
			case errors.Is(err, unix.EPERM):
				refused = err
			}
		}
	}
	for _, l := range c.Links {
		ask(l.Name, l.Index, bpfTCX, bpfTCX+1, bpfNetkit, bpfNetkit+1)
	}
	if fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		ask("sk_lookup", fd, unix.BPF_SK_LOOKUP)
		_ = unix.Close(fd)
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/run/cilium/cgroupv2"} {
		if _, err := os.Stat(root + "/cgroup.controllers"); err != nil {
			continue // no cgroup of version 2
		}
		if fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			ask("the root cgroup", fd, unix.BPF_CGROUP_INET_INGRESS, unix.BPF_CGROUP_INET_INGRESS+1,
				unix.BPF_CGROUP_INET_SOCK_CREATE,
				unix.BPF_CGROUP_SOCK_OPS, unix.BPF_CGROUP_INET4_CONNECT, unix.BPF_CGROUP_INET6_CONNECT,
				unix.BPF_CGROUP_UDP4_SENDMSG, unix.BPF_CGROUP_UDP4_SENDMSG+1)
			_ = unix.Close(fd)
			break
		}
	}
	if len(classified) > 0 {
		say("%s: classifiers of tc see packets first", strings.Join(classified, ", "))
	}
	if len(attached) > 0 {
		say("programs of eBPF take part: at %s", strings.Join(attached, ", "))
	}
	if refused != nil {
		say("programs of eBPF, if there are any: asking for them is refused (%v)", refused)
	}
}

// Kinds of attachment that golang.org/x/sys lacks (enum bpf_attach_type): ingress or primary, and
// behind it egress or peer.
const (
	bpfTCX    = 46 // Linux 6.6
	bpfNetkit = 54 // Linux 6.7
)

// attachedPrograms counts the programs that are attached to a device, cgroup or namespace.
func attachedPrograms(target int, kind uint32) (int, error) {
	// The query part of union bpf_attr: target u32, attach_type u32, query_flags u32, attach_flags
	// u32, prog_ids u64, prog_cnt u32, …
	var query [64]byte
	binary.NativeEndian.PutUint32(query[0:], uint32(target))
	binary.NativeEndian.PutUint32(query[4:], kind)
	_, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query[0])), unsafe.Sizeof(query))
	runtime.KeepAlive(&query)
	if e != 0 {
		return 0, e // EINVAL: this kernel has no such kind
	}
	return int(binary.NativeEndian.Uint32(query[24:])), nil
}

// ipsecPolicies counts the policies of xfrm, without making the kernel load it.
func ipsecPolicies(ctx context.Context) int {
	if ok, err := netlinkHas(unix.NETLINK_XFRM); err != nil || !ok {
		return 0
	}
	c, err := dial(unix.NETLINK_XFRM, 0)
	if err != nil {
		return 0
	}
	defer c.Close()
	const getPolicy, policyID = 0x15, 64 // XFRM_MSG_GETPOLICY, struct xfrm_userpolicy_id
	all, err := dump(ctx, c, getPolicy, make([]byte, policyID))
	if err != nil {
		return 0
	}
	return len(all)
}

// asksCgroups reports whether a rule asks for the cgroup of a socket.
func (c *Snapshot) asksCgroups() bool {
	for _, t := range c.Tables {
		for _, chain := range t.Chains {
			for _, r := range chain.Rules {
				for _, e := range r.Exprs {
					data, err := split(e.Data, 0)
					if err != nil {
						continue
					}
					const cgroup2 = 3 // NFT_SOCKET_CGROUPV2
					if e.Name == "meta" && net32(data.get(unix.NFTA_META_KEY)) == unix.NFT_META_CGROUP ||
						e.Name == "socket" && net32(data.get(1)) == cgroup2 || // NFTA_SOCKET_KEY
						e.Name == "match" && text(data.get(unix.NFTA_MATCH_NAME)) == "cgroup" {
						return true
					}
				}
			}
		}
	}
	for _, t := range c.Legacy {
		asks := false
		_ = t.each(func(e []byte, _ string) error { // a table that is cut is refused by the kernel
			t.matches(e, func(name string, _ []byte) { asks = asks || name == "cgroup" })
			return nil
		})
		if asks {
			return true
		}
	}
	return false
}
