package roles

import (
	"fmt"
	"net/netip"
	"os"
	"pfdivert/matrix/script"
	"testing"

	"golang.org/x/sys/unix"

	"pfdivert/matrix"
	"pfdivert/pfconf"
	"pfdivert/pfconf/rtnetlink"
	"pfdivert/roles/agent"
	"pfdivert/roles/lab/namespace"
	"pfdivert/roles/testbed"
)

// inNamespaceOf runs f on a thread in the network namespace of a process.
func inNamespaceOf(t testing.TB, pid int, f func() error) {
	t.Helper()
	done := make(chan error)
	namespace.OwnThread(func() {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A REMOTE that has FAKE configured would receive without any rule: no target may be
// believed.
func TestFakeIsOwned(t *testing.T) {
	p := reach(t, testbed.Options{})
	fake := p.Options.Families[pfconf.Inet].Fakes.Addr().Next().Next()
	inNamespaceOf(t, p.Hosts.Remote.Hello.PID, func() error {
		return rtnetlink.With(func(c *rtnetlink.Conn) error {
			lo, err := c.Link("lo")
			if err != nil {
				return err
			}
			return c.AddAddress(rtnetlink.Address{Link: lo.Index, Prefix: netip.PrefixFrom(fake, 32)})
		})
	})
	results := runPlan(t, p, matrix.Plan{Targets: matrix.Targets()}, p.Options)
	want := fmt.Sprintf("REMOTE has FAKE configured ([%v]): cells would pass without being diverted", fake)
	for _, target := range matrix.Targets() {
		if r := results[target.Name]; r.Verdict != matrix.Error || r.Reason != matrix.FakeOwned || r.Detail != want {
			t.Errorf("%s: want ERROR fake-owned: %s; got %v", target.Name, want, r)
		}
	}
}

// The piece "timestamps" does what it says, on both hosts: that no target fails
// without it would prove nothing otherwise.
func TestWithoutTimestamps(t *testing.T) {
	for _, omit := range [][]string{nil, {script.Timestamps}} {
		p := reach(t, testbed.Options{})
		p.Options.Omit = omit
		runPlan(t, p, matrix.Plan{Targets: matrix.Targets()[:1]}, p.Options)
		for host, conn := range map[string]*agent.Conn{"local": p.Hosts.Local, "remote": p.Hosts.Remote} {
			var value []byte
			inNamespaceOf(t, conn.Hello.PID, func() (err error) {
				value, err = os.ReadFile("/proc/sys/net/ipv4/tcp_timestamps")
				return err
			})
			if off := string(value) == "0\n"; off != (omit != nil) {
				t.Errorf("%s without %q: tcp_timestamps is %q", host, omit, value)
			}
		}
	}
}
