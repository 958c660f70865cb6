package faults

import "pfdivert/matrix"

// claims are what is broken for the claims: for each of them the thing that it is about.
var claims = []Fault{
	{Name: "claims-no-rule", About: "the rule of every claim is for nobody's packets", Omit: []string{"rule"},
		claims: all(matrix.NotDelivered, reasons{
			matrix.NotLost: {"no-listener-in", "no-listener-out"}, matrix.NotCounted: {"bypass"}, matrix.NotRewritten: {"tcp-in", "tcp-out"},
		})},
	{Name: "fail-open", About: "the divert-packet rules let packets pass when nobody listens", Omit: []string{"closed"},
		claims: some(matrix.NotLost, "no-listener-in", "no-listener-out")},
	{Name: "not-bypassed", About: "the rule with bypass is loaded without it", Omit: []string{"bypass"}, claims: some(matrix.NotBypassed, "bypass")},
	{Name: "given-back", About: "the divert socket gives a packet back that it must keep", Omit: []string{"keep"}, claims: some(matrix.NotLost, "not-given-back")},
	{Name: "looped", About: "a packet that is given back meets its rule again", Omit: []string{"go-on"},
		claims: all(matrix.NotReinjected, reasons{
			matrix.Looped:       {"no-loop-in", "no-loop-out"},
			matrix.WrongData:    {"order-in", "order-out", "reassembled", "reassembled-udp", "longest-in", "longest-out", "full"},
			matrix.NotDelivered: {"tcp-in", "tcp-out", "both-tcp"},
			"":                  natlook,
		})},
	{Name: "privileged", About: "the process that has no privilege has it", Omit: []string{"no-privilege"}, claims: some(matrix.NotRefused, "superuser")},
	{Name: "first-closed", About: "the first socket of a divert port is closed when the second one is opened", Omit: []string{"first"},
		claims: some(matrix.NotRefused, "second-bind")},
	{Name: "disordered", About: "neighbours in a row of packets are sent the wrong way round", Omit: []string{"order"},
		claims: some(matrix.WrongData, "order-in", "order-out")},
	{Name: "in-pieces", About: "a long message comes as many short ones", Omit: []string{"whole"},
		claims: some(matrix.WrongData, "reassembled", "reassembled-udp", "longest-in", "longest-out")},
	{Name: "room-for-all", About: "no more packets are sent than the divert socket has room for", Omit: []string{"many"}, claims: some(matrix.NotLost, "full")},
	{Name: "right-checksums", About: "checksums that must be wrong are right", Omit: []string{"spoilt"}, claims: some(matrix.NotLost, "checksums-kept")},
	{Name: "not-rewritten", About: "the packet role gives packets back as they are", Omit: []string{"rewriting"},
		claims: all(matrix.NotRewritten, reasons{
			matrix.WrongData: {"other-length-in", "other-length-out"},
			"":               append(natlook, "no-loop-in", "no-loop-out", "order-in", "order-out", "reassembled", "reassembled-udp", "longest-in", "longest-out"),
		})},
	{Name: "claims-bad-checksum", About: "the packet role of every claim leaves the checksums as they were", Omit: []string{"checksum"},
		claims: all(matrix.NotReinjected, reasons{
			// IPv6 looks at ICMP's checksum before LOCAL's socket does.
			matrix.WrongData: {"inet-divert-icmp-out", "both-icmp"},
			"":               append(natlook, "no-loop-in", "no-loop-out", "reassembled", "rip-in", "rip-out", "both-rip"),
		})},
}

// natlook are the claims in which no packet comes to a divert socket.
var natlook = []string{"tcp", "udp"}

// reasons has, by the reason for which they fail, the names of claims, or of targets for one
// family; those of "" pass.
type reasons map[string][]string

// some: the claims with these names fail for the reason, and no others.
func some(reason string, names ...string) func(matrix.Target) Want {
	return all("", reasons{reason: names})
}

// all: every claim fails for the reason, or for its own. What explains it depends on
// how far each had come.
func all(reason string, own reasons) func(matrix.Target) Want {
	by := map[string]string{}
	for r, names := range own {
		for _, n := range names {
			by[n] = r
		}
	}
	return func(t matrix.Target) Want {
		r, ok := by[t.Name]
		if !ok {
			r, ok = by[t.Claim.Name]
		}
		if !ok {
			r = reason
		}
		if r == "" {
			return pass
		}
		return Want{matrix.Fail, r, anyCause}
	}
}

// anyCause stands for every explanation and for none.
const anyCause = "*"
