package twin

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestParseFlow(t *testing.T) {
	for _, c := range []struct {
		text string
		want Flow
		what string // of the error
	}{
		{text: "tcp 192.168.1.20 -> 198.51.100.7:443", want: Flow{Proto: "tcp", In: Anywhere,
			From: netip.MustParseAddrPort("192.168.1.20:0"), To: netip.MustParseAddrPort("198.51.100.7:443")}},
		{text: "udp lan0 [2001:db8::20]:4000 -> [2001:db8:7::7]:53", want: Flow{Proto: "udp", In: "lan0",
			From: netip.MustParseAddrPort("[2001:db8::20]:4000"), To: netip.MustParseAddrPort("[2001:db8:7::7]:53")}},
		{text: "tcp host -> 198.51.100.7:443", want: Flow{Proto: "tcp",
			To: netip.MustParseAddrPort("198.51.100.7:443")}},
		{text: "tcp host mark 0xff uid 1000 gid 7 -> 198.51.100.7:443",
			want: Flow{Proto: "tcp", Mark: 255, UID: 1000, GID: 7, To: netip.MustParseAddrPort("198.51.100.7:443")}},
		{text: "tcp host 10.0.0.1 -> 198.51.100.7:443", want: Flow{Proto: "tcp",
			From: netip.MustParseAddrPort("10.0.0.1:0"), To: netip.MustParseAddrPort("198.51.100.7:443")}},
		{text: "", what: "no sender"},
		{text: "tcp -> 198.51.100.7:443", what: "no sender"},
		{text: "sctp 10.0.0.1 -> 10.0.0.2:1", what: "neither tcp nor udp"},
		{text: "tcp 10.0.0.1 -> 10.0.0.2", what: "no address with a port"},
		{text: "tcp 10.0.0.1 -> 10.0.0.2:0", what: "no address with a port"},
		{text: "tcp 10.0.0.1 -> 10.0.0.2:65536", what: "no address with a port"},
		{text: "tcp lan0 -> 10.0.0.2:1", what: "neither an address nor"},
		{text: "tcp 10.0.0.1 mark 1 -> 10.0.0.2:1", what: "not known of a sender"},
		{text: "tcp host mark -> 10.0.0.2:1", what: "not known of a sender"},
		{text: "tcp host mark 0x1ffffffff -> 10.0.0.2:1", what: "no number"},
		{text: "tcp 10.0.0.1 -> [2001:db8::1]:1", what: "different families"},
		{text: "tcp 10.0.0.1 -> 224.0.0.1:1", what: "a group's"},
		{text: "tcp 10.0.0.1 -> [fe80::1]:1", what: "of one link alone"},
		{text: "tcp 0.0.0.0 -> 10.0.0.2:1", what: "no one's"},
		{text: "tcp host -> 10.0.0.2:1" + strings.Repeat(" ", 300), what: "longer than"},
	} {
		got, err := ParseFlow(c.text)
		if c.what != "" {
			if wrong := new(FlowError); !errors.As(err, &wrong) || !strings.Contains(wrong.What, c.what) {
				t.Errorf("%q: %v, want an error with %q", c.text, err, c.what)
			}
			continue
		}
		c.want.Kind, c.want.ID = Given, c.text
		if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v, want %+v", c.text, got, err, c.want)
		}
	}
}

// A flow that is read has a name that is read as the same flow.
func FuzzParseFlow(f *testing.F) {
	for _, text := range []string{
		"tcp 192.168.1.20 -> 198.51.100.7:443", "udp lan0 [2001:db8::20]:4000 -> [2001:db8:7::7]:53",
		"tcp host mark 0xff uid 1000 gid 7 -> 198.51.100.7:443",
		"tcp host 10.0.0.1:7 -> [::ffff:198.51.100.7]:443", "tcp fe80 ::1 -> [::1]:1",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		one, err := ParseFlow(text)
		if err != nil {
			return
		}
		if two, err := ParseFlow(one.ID); err != nil || two != one {
			t.Errorf("%q is %+v, whose name is read as %+v, %v", text, one, two, err)
		}
	})
}
