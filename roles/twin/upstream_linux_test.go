package twin

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The connection of a program that has a listener for diverted packets is read with its mark and
// user, and one to the listener itself is not. It has to leave the host, so a flow stands for it.
func TestUpstreams(t *testing.T) {
	const divert = "iptables -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 12345"
	for _, c := range []struct {
		name, script string
		want         int
	}{
		{"no rule for the host's own packets", strings.Replace(divert, "OUTPUT", "PREROUTING", 1), 0},
		{"to another port", strings.Replace(divert, "12345", "12346", 1), 0},
		{"diverted", divert, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The connection is begun before the rules are there, as an answer to it is not needed.
			live := router(t, "")
			var fds []int
			t.Cleanup(func() {
				for _, fd := range fds {
					_ = unix.Close(fd)
				}
			})
			if err := live.Do(func() error {
				listener, err := open{proto: "tcp", local: netip.MustParseAddrPort("0.0.0.0:12345")}.socket()
				fds = append(fds, listener)
				if err := errors.Join(err, unix.Listen(listener, 5)); err != nil {
					return err
				}
				for _, to := range []string{"198.51.100.9:8443", "10.91.1.1:12345"} {
					fd, err := open{proto: "tcp", mark: 77, uid: 1234}.socket()
					if err != nil {
						return err
					}
					fds = append(fds, fd)
					if err := unix.Connect(fd, sockaddr(netip.MustParseAddrPort(to), false)); err != nil &&
						!errors.Is(err, unix.EINPROGRESS) {
						return err
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			sh(t, live, c.script)
			var config *Snapshot
			if err := live.Do(func() (err error) {
				config, err = read(context.Background(), true)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if len(config.Upstreams) != c.want {
				t.Fatalf("upstreams %+v, want %d", config.Upstreams, c.want)
			}
			if c.want == 0 {
				return
			}
			comm, err := os.ReadFile("/proc/self/comm")
			if err != nil {
				t.Fatal(err)
			}
			want := Upstream{
				Proto: "tcp", Remote: netip.MustParseAddrPort("198.51.100.9:8443"), Mark: 77, UID: 1234,
				Comm: strings.TrimSpace(string(comm)),
			}
			if config.Upstreams[0] != want {
				t.Errorf("upstream %+v, want %+v", config.Upstreams[0], want)
			}
			const id = "tcp host mark 0x4d uid 1234 -> 198.51.100.9:8443"
			if !slices.ContainsFunc(Plan(config), func(f Flow) bool { return f.Kind == Exempt && f.ID == id }) {
				t.Errorf("no flow %s", id)
			}
		})
	}
}
