package pfconf

import (
	"strconv"
	"strings"
)

// protocols are the names that pfctl prints for protocol numbers, in the order
// of the numbers: OpenBSD's /etc/protocols (1.25), which FreeBSD's agrees with
// but for names that are added below. "-" has no name there and is printed as a
// number. Several numbers are called "any"; a state of one is read as the first.
var protocols = strings.Fields(`
ip icmp igmp ggp ipencap st2 tcp cbt egp igp
bbn-rcc nvp pup argus emcon xnet chaos udp mux dcn
hmp prm xns-idp trunk-1 trunk-2 leaf-1 leaf-2 rdp irtp iso-tp4
netblt mfe-nsp merit-inp dccp 3pc idpr xtp ddp idpr-cmtp tp++
il ipv6 sdrp ipv6-route ipv6-frag idrp rsvp gre dsr bna
esp ah i-nlsp swipe narp mobile - skip ipv6-icmp ipv6-nonxt
ipv6-opts any cftp any sat-expak kryptolan rvd ippc any sat-mon
visa ipcv cpnx cphb wsn pvp br-sat-mon sun-nd wb-mon wb-expak
iso-ip vmtp secure-vmtp vines ttp nsfnet-igp dgp tcf igrp ospf
sprite-rpc larp mtp ax.25 ipip micp scc-sp etherip encap any
gmtp ifmp pnni pim aris scps qnx a/n ipcomp snp
compaq-peer ipx-in-ip carp pgm - l2tp ddx iatp stp srp
uti smp sm ptp isis fire crtp crudp sscopmce iplt
sps pipe sctp fc rsvp-e2e-ignore mobility-header udplite mpls-in-ip manet hip
shim6 wesp rohc`)

var protoNumbers = func() map[string]int {
	m := map[string]int{"pfsync": 240, "reserved": 255, "tlsp": 56} // the last is FreeBSD's
	for n, name := range protocols {
		if _, seen := m[name]; !seen && name != "-" {
			m[name] = n
		}
	}
	return m
}()

// ProtoName is what OpenBSD's pfctl prints for an IP protocol number.
func ProtoName(n int) string {
	switch {
	case n >= 0 && n < len(protocols) && protocols[n] != "-":
		return protocols[n]
	case n == 240:
		return "pfsync"
	case n == 255:
		return "reserved"
	}
	return strconv.Itoa(n)
}

// ProtoNumber returns the number of an IP protocol that pfctl or ipfw printed as a name or number;
// ok is false for an unknown name.
func ProtoNumber(s string) (n int, ok bool) {
	if n, ok := protoNumbers[s]; ok {
		return n, true
	}
	number, err := strconv.ParseUint(s, 10, 8)
	return int(number), err == nil
}
