package evidence

import (
	"slices"
	"testing"

	"github.com/google/nftables/expr"
)

// What a rule does is found among its matches and counters, nft's statements and iptables' targets
// alike.
func TestDoings(t *testing.T) {
	matches := []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, &expr.Cmp{Register: 1}, &expr.Counter{}, &expr.Ct{Key: expr.CtKeyZONE, Register: 1}}
	for _, c := range []struct {
		last expr.Any
		want string
	}{
		{&expr.Verdict{Kind: expr.VerdictDrop}, "drop"},
		{&expr.Verdict{Kind: expr.VerdictAccept}, ""},
		{&expr.Verdict{Kind: expr.VerdictJump, Chain: "other"}, jumps},
		{&expr.Reject{}, "reject"},
		{&expr.Notrack{}, "notrack"},
		{&expr.Redir{}, "redirect"},
		{&expr.Masq{}, "masquerade"},
		{&expr.NAT{Type: expr.NATTypeDestNAT}, "dnat"},
		{&expr.NAT{Type: expr.NATTypeSourceNAT}, "snat"},
		{&expr.TProxy{}, "tproxy"},
		{&expr.Queue{}, "queue"},
		{&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1}, "mark set"},
		{&expr.Ct{Key: expr.CtKeyZONE}, "ct zone set"},
		{&expr.Target{Name: "TPROXY"}, "tproxy"},
		{&expr.Target{Name: "MASQUERADE"}, "masquerade"},
		{&expr.Target{Name: "LOG"}, ""},
	} {
		var want []string
		if c.want != "" {
			want = []string{c.want}
		}
		if got := doings(append(slices.Clone(matches), c.last)); !slices.Equal(got, want) {
			t.Errorf("%T %+v: does %q, not %q", c.last, c.last, got, want)
		}
	}
}
