package pf

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"pfdivert/pfconf"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// unspaced is hexadecimal as it is written in a table.
func unspaced(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const nobody = "00000000000000000000000000000000 "

// The questions and answers byte for byte, as a C compiler lays out struct pfioc_natlook of
// the systems' net/pfvar.h. Addresses, ports and the two answers of FreeBSD are those that
// FreeBSD 12.1 gave; it prints sizeof(pfioc_natlook)=76 DIOCNATLOOK=0xc04c4417.
func TestNatlookLayouts(t *testing.T) {
	const (
		client4, server4, fake4 = "0abd0102000000000000000000000000 ", "7f000001000000000000000000000000 ",
			"0abd0909000000000000000000000000 "
		client6, fake6 = "fd000189000100000000000000000002 ", "fd000189000900000000000000000009 "
	)
	for _, c := range []struct {
		name         string
		layout       natlookLayout
		request      uint32
		query        pfconf.NATQuery
		asks, answer string
		want         pfconf.NATAnswer
	}{
		{
			"FreeBSD inet tcp", freebsdNatlook, 0xc04c4417,
			pfconf.NATQuery{Proto: pfconf.TCP, Direction: pfconf.Out, Src: ap("10.189.1.2:61868"),
				Dst: ap("127.0.0.1:12300")},
			client4 + server4 + nobody + nobody + "f1ac 300c 0000 0000 02 06 02 00",
			client4 + server4 + client4 + fake4 + "f1ac 300c f1ac 0050 02 06 02 00",
			pfconf.NATAnswer{Src: ap("10.189.1.2:61868"), Dst: ap("10.189.9.9:80")},
		},
		{
			"FreeBSD inet6 tcp", freebsdNatlook, 0xc04c4417,
			pfconf.NATQuery{Proto: pfconf.TCP, Direction: pfconf.Out, Src: ap("[fd00:189:1::2]:40145"),
				Dst: ap("[fd00:189:1::2]:12300")},
			client6 + client6 + nobody + nobody + "9cd1 300c 0000 0000 1c 06 02 00",
			client6 + client6 + client6 + fake6 + "9cd1 300c 9cd1 0050 1c 06 02 00",
			pfconf.NATAnswer{Src: ap("[fd00:189:1::2]:40145"), Dst: ap("[fd00:189:9::9]:80")},
		},
		{
			"FreeBSD inet udp, translated source", freebsdNatlook, 0xc04c4417,
			pfconf.NATQuery{Proto: pfconf.UDP, Direction: pfconf.In, Src: ap("10.189.1.2:61868"),
				Dst: ap("10.189.9.9:80")},
			client4 + fake4 + nobody + nobody + "f1ac 0050 0000 0000 02 11 01 00",
			client4 + fake4 + server4 + fake4 + "f1ac 0050 300c 0050 02 11 01 00",
			pfconf.NATAnswer{Src: ap("127.0.0.1:12300"), Dst: ap("10.189.9.9:80")},
		},
		{
			"OpenBSD inet tcp in routing domain 1", openbsdNatlook, 0xc0504417,
			pfconf.NATQuery{Proto: pfconf.TCP, Direction: pfconf.Out, Src: ap("10.189.1.2:61868"),
				Dst: ap("127.0.0.1:12300"), Domain: 1},
			client4 + server4 + nobody + nobody + native(1) + "0000 f1ac 300c 0000 0000 02 06 02 00",
			client4 + server4 + client4 + fake4 + native(1) + native(2) + "f1ac 300c f1ac 0050 02 06 02 00",
			pfconf.NATAnswer{Src: ap("10.189.1.2:61868"), Dst: ap("10.189.9.9:80"), Domain: 2},
		},
		{
			"OpenBSD inet6 udp", openbsdNatlook, 0xc0504417,
			pfconf.NATQuery{Proto: pfconf.UDP, Direction: pfconf.In, Src: ap("[fd00:189:1::2]:40145"),
				Dst: ap("[fd00:189:9::9]:80")},
			client6 + fake6 + nobody + nobody + "0000 0000 9cd1 0050 0000 0000 18 11 01 00",
			client6 + fake6 + client6 + fake6 + "0000 0000 9cd1 0050 0007 0050 18 11 01 00",
			pfconf.NATAnswer{Src: ap("[fd00:189:1::2]:7"), Dst: ap("[fd00:189:9::9]:80")},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := 0
			got, err := c.layout.natlook(c.query, func(request uint32, b []byte) error {
				asked++
				if want := unspaced(t, c.asks); request != c.request || string(b) != string(want) {
					t.Errorf("%#x with\n%x, want %#x with\n%x", request, b, c.request, want)
				}
				copy(b, unspaced(t, c.answer))
				return nil
			})
			if err != nil || got != c.want || asked != 1 {
				t.Errorf("%+v, %v after %d questions, want %+v", got, err, asked, c.want)
			}
			// _IOWR: both ways, the size, the group 'D' and the number 23 (sys/ioccom.h).
			if iowr := 0xc0000000 | uint32(c.layout.size)<<16 | 'D'<<8 | 23; c.layout.request != iowr {
				t.Errorf("the request is %#x, not %#x", c.layout.request, iowr)
			}
		})
	}
}

// native is a number of two bytes in this machine's order, in hexadecimal.
func native(n uint16) string {
	return hex.EncodeToString(binary.NativeEndian.AppendUint16(nil, n)) + " "
}

// What is asked without a direction, and what the kernel's errors mean.
func TestNatlookErrors(t *testing.T) {
	query := pfconf.NATQuery{Proto: pfconf.TCP, Src: ap("10.189.1.2:61868"), Dst: ap("127.0.0.1:12300")}
	with := func(change func(*pfconf.NATQuery)) pfconf.NATQuery {
		q := query
		change(&q)
		return q
	}
	const in, out = "\x01", "\x02"
	for _, c := range []struct {
		name  string
		query pfconf.NATQuery
		errs  map[string]error // by the structure's direction
		asked string
		want  string // part of the error; "" for none
		none  bool   // it is ErrNoState
	}{
		{"redirected", query, map[string]error{in: syscall.ENOENT}, out, "", false},
		{"source translated", query, map[string]error{out: syscall.ENOENT}, out + in, "", false},
		{"neither", query, map[string]error{in: syscall.ENOENT, out: syscall.ENOENT}, out + in,
			"no such state: tcp from 10.189.1.2:61868 to 127.0.0.1:12300", true},
		{"only in", with(func(q *pfconf.NATQuery) { q.Direction = pfconf.In }), map[string]error{in: syscall.ENOENT},
			in, "no such state", true},
		{"two states", query, map[string]error{out: syscall.E2BIG}, out, "more than one such state", false},
		{"not understood", query, map[string]error{out: syscall.EINVAL}, out, "DIOCNATLOOK: invalid argument", false},
		{"not allowed", query, map[string]error{out: syscall.EPERM}, out, "DIOCNATLOOK: operation not permitted",
			false},
		{"routing domain", with(func(q *pfconf.NATQuery) { q.Domain = 1 }), nil, "", "no routing domains", false},
		{"large routing domain", with(func(q *pfconf.NATQuery) { q.Domain = 256 }), nil, "",
			"routing domain 256 does not exist", false},
		{"two families", with(func(q *pfconf.NATQuery) { q.Dst = ap("[::1]:80") }), nil, "",
			"not addresses with ports of one family", false},
		{"no port", with(func(q *pfconf.NATQuery) { q.Dst = ap("10.0.0.1:0") }), nil, "",
			"not addresses with ports of one family", false},
		{"mapped", with(func(q *pfconf.NATQuery) { q.Src = ap("[::ffff:10.0.0.1]:80") }), nil, "",
			"not addresses with ports of one family", false},
		{"no ports", with(func(q *pfconf.NATQuery) { q.Proto = pfconf.Raw }), nil, "", "not for rip", false},
		// FreeBSD's kernel panics at a direction that it does not know (pf_find_state_all).
		{"bad direction", with(func(q *pfconf.NATQuery) { q.Direction = 3 }), nil, "", "no direction", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := ""
			_, err := freebsdNatlook.natlook(c.query, func(_ uint32, b []byte) error {
				d := string(b[freebsdNatlook.family+2])
				asked += d
				return c.errs[d]
			})
			if asked != c.asked {
				t.Errorf("the directions %q were asked, not %q", asked, c.asked)
			}
			switch {
			case (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want):
				t.Errorf("%v, want %q", err, c.want)
			case errors.Is(err, pfconf.ErrNoState) != c.none:
				t.Errorf("%v is ErrNoState: %v", err, !c.none)
			}
		})
	}
}
