package agent

import (
	"net"
	"net/netip"
)

// owned returns those addresses of this host that are in one of the prefixes. A
// REMOTE that has FAKE configured would receive what is sent to it without any rule.
func owned(fakes []netip.Prefix) ([]string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if !ok {
			continue
		}
		for _, f := range fakes {
			if f.Contains(ip.Unmap()) {
				found = append(found, ip.Unmap().String())
			}
		}
	}
	return found, nil
}
