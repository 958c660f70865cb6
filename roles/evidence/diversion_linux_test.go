package evidence

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
)

// attributes are pairs of a number and a value: a uint32, bytes, text or more attributes.
func attributes(t testing.TB, pairs ...any) []byte {
	t.Helper()
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	for i := 0; i < len(pairs); i += 2 {
		number := uint16(pairs[i].(int))
		switch v := pairs[i+1].(type) {
		case int:
			ae.Uint32(number, uint32(v))
		case string:
			ae.String(number, v)
		case []byte:
			ae.Bytes(number, v)
		}
	}
	b, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rule is a rule's message with statements, each a name and its attributes.
func rule(t testing.TB, family byte, statements ...any) []byte {
	t.Helper()
	var list []any
	for i := 0; i < len(statements); i += 2 {
		one := attributes(t, unix.NFTA_EXPR_NAME, statements[i], unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, statements[i+1])
		list = append(list, 1|unix.NLA_F_NESTED, one)
	}
	return append([]byte{family, 0, 0, 0}, attributes(t, unix.NFTA_RULE_TABLE, "proxy", unix.NFTA_RULE_CHAIN, "pre",
		unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, attributes(t, list...))...)
}

func ruleMessages(t testing.TB) map[string][]byte {
	value := func(b ...byte) []byte { return attributes(t, unix.NFTA_DATA_VALUE, b) }
	immediate := func(register int, b ...byte) []byte {
		return attributes(t, unix.NFTA_IMMEDIATE_DREG, register, unix.NFTA_IMMEDIATE_DATA|unix.NLA_F_NESTED, value(b...))
	}
	proto := []any{"meta", attributes(t, unix.NFTA_META_DREG, 1, unix.NFTA_META_KEY, unix.NFT_META_L4PROTO),
		"cmp", attributes(t, unix.NFTA_CMP_SREG, 1, unix.NFTA_CMP_OP, unix.NFT_CMP_EQ, unix.NFTA_CMP_DATA|unix.NLA_F_NESTED, value(6))}
	mark := []any{"immediate", immediate(1, binary.NativeEndian.AppendUint32(nil, 0x41)...),
		"meta", attributes(t, unix.NFTA_META_KEY, unix.NFT_META_MARK, unix.NFTA_META_SREG, 1)}
	// struct xt_tproxy_target_info_v1
	info := append(binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, 0xff), 7), make([]byte, 18)...)
	copy(info[8:], []byte{127, 0, 0, 1})
	copy(info[24:], []byte{0x0c, 0x38})
	return map[string][]byte{
		"tproxy": rule(t, unix.NFPROTO_INET, slices.Concat(proto, []any{
			"immediate", immediate(1, 0x0c, 0x38), "tproxy", attributes(t, 1, unix.NFPROTO_UNSPEC, 3, 1)}, mark)...),
		"tproxy to": rule(t, unix.NFPROTO_INET, slices.Concat(proto, []any{"immediate", immediate(1, 127, 0, 0, 1),
			"immediate", immediate(2, 0x0c, 0x38), "tproxy", attributes(t, 1, unix.NFPROTO_IPV4, 2, 1, 3, 2)})...),
		"redirect": rule(t, unix.NFPROTO_IPV6, slices.Concat(proto, []any{"immediate", immediate(1, 0x0c, 0x38), "redir", attributes(t, 1, 1)})...),
		"queue":    rule(t, unix.NFPROTO_IPV4, "queue", attributes(t, unix.NFTA_QUEUE_NUM, []byte{0, 5}, unix.NFTA_QUEUE_TOTAL, []byte{0, 4}, unix.NFTA_QUEUE_FLAGS, []byte{0, 1})),
		"NFQUEUE":  rule(t, unix.NFPROTO_IPV4, "target", attributes(t, 1, "NFQUEUE", 2, 3, 3, []byte{5, 0, 1, 0, 1, 0})),
		"TPROXY":   rule(t, unix.NFPROTO_IPV4, "match", attributes(t, 1, "tcp"), "target", attributes(t, 1, "TPROXY", 2, 1, 3, info)),
		"accept":   rule(t, unix.NFPROTO_IPV4, mark...),
	}
}

func TestDiversion(t *testing.T) {
	inet, both := []pfconf.Family{pfconf.Inet}, pfconf.Families
	loopback := netip.MustParseAddr("127.0.0.1")
	want := map[string]*Diversion{
		"tproxy":    {Kind: TProxy, Families: both, Proto: "tcp", Port: 3128, Mark: 0x41},
		"tproxy to": {Kind: TProxy, Families: inet, Proto: "tcp", Address: loopback, Port: 3128},
		"redirect":  {Kind: Redirect, Families: []pfconf.Family{pfconf.Inet6}, Proto: "tcp", Port: 3128},
		"queue":     {Kind: Queue, Families: inet, Queue: 5, Last: 8, Bypass: true},
		"NFQUEUE":   {Kind: Queue, Families: inet, Queue: 5, Last: 5, Bypass: true},
		"TPROXY":    {Kind: TProxy, Families: inet, Proto: "tcp", Address: loopback, Port: 3128, Mark: 7},
		"accept":    nil,
	}
	for name, b := range ruleMessages(t) {
		r, err := parseRule(b)
		if err != nil || r.table != "proxy" || r.chain != "pre" {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		got, _ := r.follow()
		if diff := cmp.Diff(want[name], got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func FuzzDiversion(f *testing.F) {
	for _, b := range ruleMessages(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRule(b); err == nil {
			if d, _ := r.follow(); d != nil && len(d.Families) == 0 {
				t.Errorf("%+v is of no family", d)
			}
		}
		if l, err := parseListener(b); err == nil && !l.At.Addr().IsValid() {
			t.Errorf("%+v listens nowhere", l)
		}
	})
}
