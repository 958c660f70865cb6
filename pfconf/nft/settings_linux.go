package nft

// timeoutNames are Linux's sysctls by pf.conf(5)'s names for the same.
var timeoutNames = [][2]string{
	{"tcp.first", "net.netfilter.nf_conntrack_tcp_timeout_syn_sent"},
	{"tcp.opening", "net.netfilter.nf_conntrack_tcp_timeout_syn_recv"},
	{"tcp.established", "net.netfilter.nf_conntrack_tcp_timeout_established"},
	{"tcp.closing", "net.netfilter.nf_conntrack_tcp_timeout_fin_wait"},
	{"tcp.finwait", "net.netfilter.nf_conntrack_tcp_timeout_time_wait"},
	{"tcp.closed", "net.netfilter.nf_conntrack_tcp_timeout_close"},
	{"udp.single", "net.netfilter.nf_conntrack_udp_timeout"},
	{"udp.multiple", "net.netfilter.nf_conntrack_udp_timeout_stream"},
	{"icmp.first", "net.netfilter.nf_conntrack_icmp_timeout"},
	{"icmp6.first", "net.netfilter.nf_conntrack_icmpv6_timeout"},
	{"other.first", "net.netfilter.nf_conntrack_generic_timeout"},
	{"frag", "net.ipv4.ipfrag_time"},
}

var limitNames = [][2]string{
	{"states", "net.netfilter.nf_conntrack_max"},
	{"buckets", "net.netfilter.nf_conntrack_buckets"},
}
