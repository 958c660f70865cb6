package twin

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pfdivert/pfconf/xt"
)

// What rules find of the owner of root's socket is what they would find of another owner's.
func TestAs(t *testing.T) {
	const host = `
		ip link set lo up
		iptables-legacy -A OUTPUT -m owner --uid-owner 1000-2000 -m comment --comment legacy-uid
		iptables-legacy -A OUTPUT -m owner ! --uid-owner 1337 -m comment --comment legacy-not-uid
		iptables-legacy -A OUTPUT -m owner --gid-owner 7 -m comment --comment legacy-gid
		iptables-legacy -A OUTPUT -m owner --uid-owner 1337 --gid-owner 7 -m comment --comment legacy-both
		iptables-legacy -A OUTPUT -m owner --uid-owner 0 -m comment --comment legacy-root
		iptables-nft -A OUTPUT -m owner --uid-owner 1337 -m comment --comment nft-uid
		nft add table inet own
		nft add set inet own users '{ type uid; elements = { 5, 1337 }; }'
		nft add chain inet own out '{ type filter hook output priority 0; }'
		nft add rule inet own out meta skuid 1337 counter comment own-uid
		nft add rule inet own out meta skuid != 1337 counter comment own-not-uid
		nft add rule inet own out meta skuid 1000-2000 counter comment own-range
		nft add rule inet own out meta skuid @users counter comment own-set
		nft add rule inet own out meta skgid 7 counter comment own-gid
		nft add rule inet own out meta skuid 0 counter comment own-root
		ip rule add uidrange 1000-2000 lookup 77 pref 50
	`
	for _, c := range []struct {
		uid, gid uint32
		want     string
	}{
		{0, 0, "legacy-not-uid legacy-root own-not-uid own-root"},
		{1337, 0, "legacy-uid nft-uid own-uid own-range own-set route"},
		{1337, 7, "legacy-uid legacy-gid legacy-both nft-uid own-uid own-range own-set own-gid route"},
		{5, 7, "legacy-not-uid legacy-gid own-not-uid own-set own-gid"},
	} {
		t.Run(fmt.Sprint(c.uid, c.gid), func(t *testing.T) {
			n := newNetns(t)
			shell(t, n, host)
			live, err := n.Read(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			as, err := live.As(c.uid, c.gid)
			if err != nil {
				t.Fatal(err)
			}
			inside, outside := newNetns(t), newNetns(t)
			lacks, err := as.Replay(context.Background(), inside, outside)
			if err != nil {
				t.Fatal(err)
			}
			// A datagram of root's, to a socket: an error of ICMP would be of no one.
			if err := inside.Do(func() error {
				to, err := net.ListenPacket("udp", "127.0.0.1:9")
				if err != nil {
					return err
				}
				defer to.Close()
				conn, err := net.Dial("udp", "127.0.0.1:9")
				if err != nil {
					return err
				}
				defer conn.Close()
				_, err = conn.Write([]byte("x"))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			twin, err := inside.Read(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range append(lacks, Compare(as, twin)...) {
				t.Error(d)
			}
			got := counted(t, twin)
			for _, r := range twin.PolicyRules {
				if r.HasUIDs && r.UIDFirst == 0 && r.UIDLast == 0 {
					got = append(got, "route")
				}
			}
			if have := strings.Join(got, " "); have != c.want {
				t.Errorf("rules that matched:\n%s, want\n%s", have, c.want)
			}
		})
	}
}

// counted are the comments of rules that counted a packet.
func counted(t *testing.T, c *Snapshot) []string {
	t.Helper()
	var got []string
	for i := range c.Legacy {
		table := &c.Legacy[i]
		at := xt.LayoutOf(table.IPv6)
		if err := table.each(func(e []byte, _ string) error {
			table.matches(e, func(name string, data []byte) {
				if name == "comment" && binary.NativeEndian.Uint64(e[at.Counters:]) > 0 {
					got = append(got, text(data))
				}
			})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range c.Tables {
		for _, chain := range table.Chains {
			for _, r := range chain.Rules {
				packets, comment := uint64(0), ""
				for _, e := range r.Exprs {
					data, err := split(e.Data, 0)
					if err != nil {
						t.Fatal(err)
					}
					switch {
					case e.Name == "counter":
						packets = net64(data.get(unix.NFTA_COUNTER_PACKETS))
					case e.Name == "match" && text(data.get(unix.NFTA_MATCH_NAME)) == "comment":
						comment = text(data.get(unix.NFTA_MATCH_INFO))
					}
				}
				if len(r.UserData) > 2 { // NFTNL_UDATA_RULE_COMMENT: kind u8, length u8, text
					comment = text(r.UserData[2:])
				}
				if packets > 0 {
					got = append(got, comment)
				}
			}
		}
	}
	return got
}
