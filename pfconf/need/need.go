// Package need lists what this program needs of a Linux kernel: one list for check-setup, for
// runs and their explanations, for the initramfs and for contrib/linux/config.
package need

import (
	"fmt"
	"slices"
	"strings"
)

// Name is a feature's name in messages.
type Name string

// The features. Probes are by whoever uses them: pfconf/nft, roles/lab, roles/socket.
const (
	Namespaces    Name = "network namespaces"
	Veth          Name = "veth"
	IPv6          Name = "IPv6"
	PolicyRouting Name = "policy routing"
	NFTables      Name = "nf_tables"
	Conntrack     Name = "nf_conntrack"
	CTNetlink     Name = "ctnetlink"
	TProxy        Name = "tproxy"
	NFQueue       Name = "NFQUEUE"
	NAT           Name = "NAT"
	Redirect      Name = "REDIRECT"
	Zones         Name = "conntrack zones"
	SocketMatch   Name = "the match of sockets"
	Bridge        Name = "rules of bridges"
	// BridgeNetfilter takes what is bridged through the rules of IP.
	BridgeNetfilter Name = "br_netfilter"
	Flowtable       Name = "flowtables"
	VRF             Name = "VRF"
	SockDiag        Name = "tcp_diag"
	Packet          Name = "packet sockets"
	XT              Name = "nft_compat"
	XTLegacy        Name = "iptables-legacy"
	XTMark          Name = "MARK of x_tables"
	XTTProxy        Name = "TPROXY of x_tables"
	XTQueue         Name = "NFQUEUE of x_tables"
	XTNAT           Name = "NAT of x_tables"
	XTSocket        Name = "socket match of x_tables"
	BPF             Name = "programs of BPF"
	BPFAssign       Name = "bpf_sk_assign"
	BPFLookup       Name = "sk_lookup"
)

// Feature is something that a kernel can have been built without.
type Feature struct {
	Name Name
	// For says what it is used for.
	For string
	// Modules has it, when it is not built in: names as lsmod prints them.
	Modules []string
	// Config are the options that bring it, without CONFIG_.
	Config []string
	// OpenWrt is the package that brings it there, empty when it is always built in.
	OpenWrt string
	// Some is set for what only some targets need: these are skipped without it.
	Some bool
}

// Features lists all. The options and modules of one are not repeated in another that builds on it.
func Features() []Feature {
	return []Feature{
		{Name: Namespaces, For: "the lab's two hosts", Config: []string{"NAMESPACES", "NET_NS"}},
		{Name: Veth, For: "the cable between the lab's hosts", Modules: []string{"veth"}, Config: []string{"VETH"},
			OpenWrt: "kmod-veth"},
		{Name: IPv6, For: "the targets of inet6", Modules: []string{"ipv6"}, Config: []string{"IPV6"}, Some: true},
		{Name: PolicyRouting, For: "routing diverted packets to sockets",
			Config: []string{"IP_ADVANCED_ROUTER", "IP_MULTIPLE_TABLES", "IPV6_MULTIPLE_TABLES"}},
		{Name: NFTables, For: "the rules", Modules: []string{"nf_tables", "nft_counter"},
			Config: []string{"NETFILTER", "NETFILTER_ADVANCED", "NETFILTER_NETLINK", "NF_TABLES", "NF_TABLES_INET",
				"NFT_COUNTER"},
			OpenWrt: "kmod-nft-core"},
		{Name: Conntrack, For: "states", Modules: []string{"nf_conntrack", "nft_ct"},
			Config: []string{"NF_CONNTRACK", "NF_CONNTRACK_MARK", "NFT_CT"}, OpenWrt: "kmod-nf-conntrack"},
		{Name: CTNetlink, For: "looking at states and killing them", Modules: []string{"nf_conntrack_netlink"},
			Config: []string{"NF_CT_NETLINK"}, OpenWrt: "kmod-nf-conntrack-netlink"},
		{Name: TProxy, For: "divert-to", Modules: []string{"nft_tproxy"}, Config: []string{"NFT_TPROXY"},
			OpenWrt: "kmod-nft-tproxy", Some: true},
		{Name: SocketMatch, For: "the claims about sockets of established flows", Modules: []string{"nft_socket"},
			Config: []string{"NFT_SOCKET"}, OpenWrt: "kmod-nft-socket", Some: true},
		{Name: Redirect, For: "the claim about it", Modules: []string{"nft_redir"}, Config: []string{"NFT_REDIR"},
			OpenWrt: "kmod-nft-nat", Some: true},
		{Name: Zones, For: "the claim about conntrack zones", Config: []string{"NF_CONNTRACK_ZONES"}, Some: true},
		{Name: NFQueue, For: "divert-packet", Modules: []string{"nfnetlink_queue", "nft_queue"},
			Config: []string{"NETFILTER_NETLINK_QUEUE", "NFT_QUEUE"}, OpenWrt: "kmod-nft-queue", Some: true},
		{Name: Bridge, For: "the claims about bridges", Modules: []string{"bridge", "nft_meta_bridge"},
			Config: []string{"BRIDGE", "NF_TABLES_BRIDGE", "NFT_BRIDGE_META"}, OpenWrt: "kmod-nft-bridge", Some: true},
		{Name: BridgeNetfilter, For: "the claim about bridged packets that met the rules of IP",
			Modules: []string{"br_netfilter"}, Config: []string{"BRIDGE_NETFILTER"}, OpenWrt: "kmod-br-netfilter",
			Some: true},
		{Name: Flowtable, For: "the claim about offloaded flows",
			Modules: []string{"nf_flow_table", "nf_flow_table_inet", "nft_flow_offload"},
			Config:  []string{"NF_FLOW_TABLE", "NF_FLOW_TABLE_INET", "NFT_FLOW_OFFLOAD", "NETFILTER_INGRESS"},
			OpenWrt: "kmod-nft-offload", Some: true},
		{Name: VRF, For: "the claims about it", Modules: []string{"vrf"},
			Config: []string{"NET_L3_MASTER_DEV", "NET_VRF"}, OpenWrt: "kmod-vrf", Some: true},
		{Name: NAT, For: "the claims about translated connections",
			Modules: []string{"nf_nat", "nft_nat", "nft_chain_nat"}, Config: []string{"NF_NAT", "NFT_NAT"},
			OpenWrt: "kmod-nft-nat", Some: true},
		{Name: SockDiag, For: "looking for sockets in TIME_WAIT and dropping them",
			Modules: []string{"inet_diag", "tcp_diag"},
			Config:  []string{"INET_DIAG", "INET_TCP_DIAG", "INET_DIAG_DESTROY"}, OpenWrt: "kmod-inet-diag",
			Some: true},
		{Name: Packet, For: "capturing packets as evidence", Modules: []string{"af_packet"},
			Config: []string{"PACKET"}, Some: true},
		{Name: XT, For: "-filter xt",
			Modules: []string{"nft_compat", "x_tables", "xt_tcpudp"},
			Config:  []string{"NFT_COMPAT", "NETFILTER_XTABLES"},
			OpenWrt: "kmod-nft-compat", Some: true},
		{Name: XTMark, For: "marking packets and connections with -filter xt and xt-legacy",
			Modules: []string{"xt_mark", "xt_connmark"},
			Config:  []string{"NETFILTER_XT_MARK", "NETFILTER_XT_CONNMARK"},
			OpenWrt: "kmod-ipt-conntrack-extra", Some: true},
		{Name: XTLegacy, For: "-filter xt-legacy",
			Modules: []string{"iptable_mangle", "ip6table_mangle", "xt_comment"},
			Config: []string{"NETFILTER_XTABLES_LEGACY", "IP_NF_MANGLE", "IP6_NF_MANGLE",
				"NETFILTER_XT_MATCH_COMMENT"},
			OpenWrt: "kmod-ipt-core", Some: true},
		{Name: XTTProxy, For: "divert-to with -filter xt and xt-legacy", Modules: []string{"xt_TPROXY"},
			Config: []string{"NETFILTER_XT_TARGET_TPROXY"}, OpenWrt: "kmod-ipt-tproxy", Some: true},
		{Name: XTQueue, For: "divert-packet with -filter xt and xt-legacy", Modules: []string{"xt_NFQUEUE"},
			Config: []string{"NETFILTER_XT_TARGET_NFQUEUE"}, OpenWrt: "kmod-ipt-nfqueue", Some: true},
		{Name: XTSocket, For: "the claims about transparent sockets with -filter xt and xt-legacy",
			Modules: []string{"xt_socket"}, Config: []string{"NETFILTER_XT_MATCH_SOCKET"},
			OpenWrt: "kmod-ipt-tproxy", Some: true},
		{Name: XTNAT, For: "the claims about natlook with -filter xt and xt-legacy",
			Modules: []string{"xt_nat", "xt_REDIRECT", "iptable_nat", "ip6table_nat"},
			Config:  []string{"NETFILTER_XT_NAT", "NETFILTER_XT_TARGET_REDIRECT", "IP_NF_NAT", "IP6_NF_NAT"},
			OpenWrt: "kmod-ipt-nat", Some: true},
		{Name: BPF, For: "-filter bpf, which takes root in the initial user namespace, too",
			Modules: []string{"sch_ingress", "cls_bpf"},
			Config:  []string{"BPF_SYSCALL", "NET_CLS_ACT", "NET_SCH_INGRESS", "NET_CLS_BPF"},
			OpenWrt: "kmod-sched-bpf", Some: true},
		{Name: BPFAssign, For: "divert-to with -filter bpf: Linux 5.7 has it", Config: []string{"INET"}, Some: true},
		{Name: BPFLookup, For: "-filter bpf-lookup: Linux 5.10 has it", Config: []string{"BPF_STREAM_PARSER"},
			Some: true},
	}
}

// MissingError says that the kernel has no such feature: it was asked for and refused with Err.
type MissingError struct {
	Feature Name
	Err     error
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("this kernel has no %s: %v", e.Feature, e.Err)
}

func (e *MissingError) Unwrap() error { return e.Err }

// Missing marks the error as the proof that a feature is missing.
func (e *MissingError) Missing() string { return string(e.Feature) }

// Hint is what to do about it, for a person.
func (e *MissingError) Hint() string {
	f, _ := Of(e.Feature)
	return f.Cure()
}

// Named returns the feature that the text of a MissingError names; ok is false when it is none.
func Named(text string) (f Feature, ok bool) {
	_, rest, ok := strings.Cut(text, "this kernel has no ")
	if !ok {
		return Feature{}, false
	}
	name, _, _ := strings.Cut(rest, ":")
	return Of(Name(name))
}

// Of returns a feature by its name; ok is false when there is none.
func Of(name Name) (f Feature, ok bool) {
	all := Features()
	i := slices.IndexFunc(all, func(f Feature) bool { return f.Name == name })
	if i < 0 {
		return Feature{}, false
	}
	return all[i], true
}

// Cure is what to do about a kernel without the feature, for a person.
func (f Feature) Cure() string {
	text := "run a kernel with "
	for i, c := range f.Config {
		if i > 0 {
			text += ", "
		}
		text += "CONFIG_" + c
	}
	if len(f.Modules) > 0 {
		modules := ""
		for _, m := range f.Modules {
			modules += " " + m
		}
		text = "modprobe -a" + modules + "; where there are no such modules, " + text
	}
	if f.OpenWrt != "" {
		text += "; on OpenWrt install " + f.OpenWrt
	}
	return text
}
