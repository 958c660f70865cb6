package twin

import "fmt"

// bridgePorts finds rules that divert what comes by a device that is a bridge's port: packets come
// by the bridge, and no flow meets such a rule.
func (d *doctor) bridgePorts() {
	for _, s := range d.hints.seen {
		if s.hook != 0 || !s.redirect && !d.c.marksLocal(s.hint, false) && !d.c.marksLocal(s.hint, true) {
			continue
		}
		setting := "bridge/bridge-nf-call-iptables"
		if s.family == "ip6" {
			setting = "bridge/bridge-nf-call-ip6tables"
		}
		a, ok := s.first(askIn)
		if !ok || len(a.names) != 1 || d.c.Settings[setting] == "1" {
			continue
		}
		port := d.c.linkNamed(a.names[0])
		if port == nil || port.Master == 0 {
			continue
		}
		bridge := d.c.link(port.Master)
		if bridge == nil || bridge.Kind != "bridge" {
			continue
		}
		d.add(Problem{
			Severity: Warn, Cause: "bridge-port",
			What:  fmt.Sprintf("no packet meets %s, which diverts what comes by %s", s.where, port.Name),
			Why:   fmt.Sprintf("%s is a port of bridge %s: packets come by the bridge, and a rule has to ask for that", port.Name, bridge.Name),
			Check: fmt.Sprintf("ip -d link show %s", port.Name),
		})
	}
}
