package twin

import (
	"os"
	"strings"
)

// settings are the files below /proc/sys/net that a twin copies. The order is that of writing: the
// first ones of each family reset others. What is of devices comes with their messages.
var settings = append(append([]string{
	"ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6",

	"ipv4/fib_multipath_hash_policy", "ipv4/fib_multipath_use_neigh", "ipv4/fwmark_reflect",
	"ipv4/icmp_errors_use_inbound_ifaddr",
	"ipv4/ip_autobind_reuse", "ipv4/ip_default_ttl", "ipv4/ip_early_demux", "ipv4/ip_forward_use_pmtu",
	"ipv4/ip_local_port_range",
	"ipv4/ip_local_reserved_ports", "ipv4/ip_no_pmtu_disc", "ipv4/ip_nonlocal_bind", "ipv4/ip_unprivileged_port_start",
	"ipv4/raw_l3mdev_accept", "ipv4/tcp_early_demux", "ipv4/tcp_fwmark_accept", "ipv4/tcp_l3mdev_accept",
	"ipv4/tcp_mtu_probing",
	"ipv4/tcp_syncookies", "ipv4/tcp_timestamps", "ipv4/tcp_tw_reuse", "ipv4/udp_early_demux", "ipv4/udp_l3mdev_accept",
	"ipv6/bindv6only", "ipv6/fib_multipath_hash_policy", "ipv6/fwmark_reflect", "ipv6/ip_nonlocal_bind",
	"bridge/bridge-nf-call-arptables", "bridge/bridge-nf-call-ip6tables", "bridge/bridge-nf-call-iptables",
	"bridge/bridge-nf-filter-pppoe-tagged", "bridge/bridge-nf-filter-vlan-tagged",
	"bridge/bridge-nf-pass-vlan-input-dev",
	"netfilter/nf_conntrack_checksum", "netfilter/nf_conntrack_helper", "netfilter/nf_conntrack_tcp_be_liberal",
	"netfilter/nf_conntrack_tcp_ignore_invalid_rst", "netfilter/nf_conntrack_tcp_loose",
	"netfilter/nf_conntrack_tcp_no_window_check",
}, confNames("ipv4", conf4)...), confNames("ipv6", conf6)...)

// conf4 are the settings of a device that a twin copies, by their IPV4_DEVCONF_ (linux/ip.h). Those
// that write to the host's log (log_martians) are left out, and those of multicast.
var conf4 = map[int]string{
	1: "forwarding", 3: "proxy_arp", 4: "accept_redirects", 5: "secure_redirects", 6: "send_redirects",
	7: "shared_media",
	8: "rp_filter", 9: "accept_source_route", 13: "arp_filter", 15: "disable_xfrm", 16: "disable_policy",
	18: "arp_announce",
	19: "arp_ignore", 20: "promote_secondaries", 23: "accept_local", 24: "src_valid_mark", 25: "proxy_arp_pvlan",
	26: "route_localnet", 29: "ignore_routes_with_linkdown", 30: "drop_unicast_in_l2_multicast", 32: "bc_forwarding",
}

// conf6 are those of IPv6, by their DEVCONF_ (linux/ipv6.h). Those by which a device gets addresses
// of its own accord are left out: the addresses are copied.
var conf6 = map[int]string{
	0: "forwarding", 22: "proxy_ndp", 24: "accept_source_route", 26: "disable_ipv6", 37: "use_oif_addrs_only",
	39: "ignore_routes_with_linkdown", 40: "drop_unicast_in_l2_multicast", 42: "keep_addr_on_down",
	48: "disable_policy",
	59: "force_forwarding",
}

// confNames are the files of the settings of no device, forwarding first: it resets others.
func confNames(family string, conf map[int]string) []string {
	var names []string
	for id := range 64 {
		if name := conf[id]; name != "" {
			names = append(names, family+"/conf/all/"+name, family+"/conf/default/"+name)
		}
	}
	return names
}

// readSettings reads what there is of the settings: kernels differ in it.
func (d *Dump) readSettings() {
	for _, name := range settings {
		if b, err := os.ReadFile("/proc/sys/net/" + name); err == nil {
			d.Settings[name] = strings.TrimSpace(string(b))
		}
	}
}
