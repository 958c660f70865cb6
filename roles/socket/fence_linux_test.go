package socket

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pfdivert/pfconf"
	"pfdivert/roles/lab"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/lab/namespace"

	"golang.org/x/sys/unix"
)

// fenceLab builds a lab in a namespace of its own.
func fenceLab(t testing.TB) *lab.Lab {
	t.Helper()
	labtest.Need(t)
	var l *lab.Lab
	done := make(chan error)
	namespace.OwnThread(func() {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			l, err = lab.Build(t.Context(), lab.Config{})
		}
		done <- err
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func fenceIn(t testing.TB, l *lab.Lab, local, remote netip.Addr) *Fencer {
	t.Helper()
	var f *Fencer
	err := l.In(lab.Local, func() (err error) {
		f, err = OpenFence(local, remote)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func eachFamily(t *testing.T, l *lab.Lab, f func(t *testing.T, p lab.AddressPlan)) {
	for _, family := range l.Families {
		t.Run(family.String(), func(t *testing.T) { f(t, l.Config.PlanOf(family)) })
	}
}

func TestFencePass(t *testing.T) {
	l := fenceLab(t)
	eachFamily(t, l, func(t *testing.T, p lab.AddressPlan) {
		for rounds := range 3 {
			f := fenceIn(t, l, p.Local.Addr(), p.Remote.Addr())
			f.Rounds = rounds
			for range 20 {
				rtt, err := f.Pass(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if rtt <= 0 || rtt > time.Second {
					t.Fatalf("round trip of %v", rtt)
				}
			}
			if want := uint16(20 * max(1, rounds)); f.seq != want {
				t.Errorf("%d rounds: %d requests, want %d", rounds, f.seq, want)
			}
		}
	})
}

// What was sent before the fence is in the receiver's queue behind it.
func TestFenceOrder(t *testing.T) {
	l := fenceLab(t)
	eachFamily(t, l, func(t *testing.T, p lab.AddressPlan) {
		f := fenceIn(t, l, p.Local.Addr(), p.Remote.Addr())
		var server, client *net.UDPConn
		err := l.In(lab.Remote, func() (err error) {
			server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Remote.Addr(), 0)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		err = l.In(lab.Local, func() (err error) {
			client, err = net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for i := range 200 {
			err := onOneCPU(func() error {
				if _, err := client.Write([]byte{byte(i)}); err != nil {
					return err
				}
				_, err := f.Pass(t.Context())
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := server.SyscallConn()
			b := make([]byte, 2)
			var n int
			raw.Read(func(fd uintptr) bool { n, err = unix.Read(int(fd), b); return true })
			if n != 1 || b[0] != byte(i) {
				t.Fatalf("datagram %d: not there behind the fence: %v", i, err)
			}
		}
	})
}

// onOneCPU runs f on a thread that cannot move: packets on a veth stay in the
// order in which one CPU sent them.
func onOneCPU(f func() error) error {
	done := make(chan error)
	namespace.OwnThread(func() {
		var all, one unix.CPUSet
		err := unix.SchedGetaffinity(0, &all)
		for cpu := 0; err == nil && one.Count() == 0; cpu++ {
			if all.IsSet(cpu) {
				one.Set(cpu)
			}
		}
		if err == nil {
			err = unix.SchedSetaffinity(0, &one)
		}
		if err == nil {
			err = f()
		}
		done <- err
	})
	return <-done
}

// Callers that come at the same time share echoes.
func TestFenceShared(t *testing.T) {
	l := fenceLab(t)
	p := l.Config.PlanOf(pfconf.Inet)
	f := fenceIn(t, l, p.Local.Addr(), p.Remote.Addr())
	const callers, passes = 64, 50
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range passes {
				if _, err := f.Pass(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d passes with %d echoes", callers*passes, f.seq)
	if int(f.seq) > callers*passes/2 {
		t.Errorf("%d echoes for %d passes", f.seq, callers*passes)
	}
	if f.busy || f.next != nil {
		t.Error("a wave is still under way")
	}
}

// ignoreEcho has REMOTE answer no echo requests, or answer them again.
func ignoreEcho(t *testing.T, l *lab.Lab, v string) {
	t.Helper()
	err := l.In(lab.Remote, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/icmp_echo_ignore_all", []byte(v), 0)
	})
	if err != nil {
		t.Error(err)
	}
}

// ignoredEcho reports whether REMOTE has had an echo request.
func ignoredEcho(t *testing.T, l *lab.Lab) (had bool) {
	t.Helper()
	err := l.In(lab.Remote, func() error {
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		had = bytes.Contains(text, []byte(" InType8"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return had
}

// Callers that come while an echo is under way get the next one, all the same.
func TestFenceNext(t *testing.T) {
	l := fenceLab(t)
	p := l.Config.PlanOf(pfconf.Inet)
	f := fenceIn(t, l, p.Local.Addr(), p.Remote.Addr())
	ignoreEcho(t, l, "1")
	var all sync.WaitGroup
	began := time.Now()
	pass := func() {
		if _, err := f.Pass(t.Context()); err != nil {
			t.Error(err)
		}
	}
	waiting := func(next bool) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.busy && (f.next != nil) == next
	}
	all.Go(pass)
	for !waiting(false) || !ignoredEcho(t, l) {
		runtime.Gosched()
	}
	for range 10 {
		all.Go(pass)
	}
	for !waiting(true) {
		runtime.Gosched()
	}
	ignoreEcho(t, l, "0")
	all.Wait()
	// One for the first caller and one for all others, and those that took the place of lost ones.
	if again := int(time.Since(began) / fenceResend); f.seq < 3 || int(f.seq) > 2+again {
		t.Errorf("%d requests in %v, want 3", f.seq, time.Since(began))
	}
}

// Close ends a wait.
func TestFenceClose(t *testing.T) {
	l := fenceLab(t)
	p := l.Config.PlanOf(pfconf.Inet)
	f := fenceIn(t, l, p.Local.Addr(), p.Remote.Addr())
	ignoreEcho(t, l, "1")
	failed := make(chan error)
	for range 2 {
		go func() {
			_, err := f.Pass(t.Context())
			failed <- err
		}()
	}
	time.Sleep(5 * time.Millisecond)
	f.Close()
	for range 2 {
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	if _, err := f.Pass(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if f.busy {
		t.Error("a wave is still under way")
	}
}

// noAnswer: every 50 ms one more is sent, and 250 ms are the time of five.
const noAnswer = "no answer to 5 echo requests in 250ms"

func TestFenceAbsentHost(t *testing.T) {
	l := fenceLab(t)
	eachFamily(t, l, func(t *testing.T, p lab.AddressPlan) {
		_, fake, err := p.Pair(1)
		if err != nil {
			t.Fatal(err)
		}
		// REMOTE has no route for it and, on IPv4, says nothing.
		f := fenceIn(t, l, p.Local.Addr(), fake)
		f.Timeout = 180 * time.Millisecond
		start := time.Now()
		_, err = f.Pass(t.Context())
		if err == nil || !strings.Contains(err.Error(), fake.String()) {
			t.Errorf("passed an absent host: %v", err)
		}
		if p.Local.Addr().Is4() && (!strings.Contains(err.Error(), noAnswer) || time.Since(start) < f.Timeout) {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		f.Timeout = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		start = time.Now()
		if _, err := f.Pass(ctx); err == nil || time.Since(start) > f.Timeout/2 {
			t.Errorf("a caller's own deadline: %v after %v", err, time.Since(start))
		}
	})
}

// A lost echo is sent again.
func TestFenceLostEcho(t *testing.T) {
	l := fenceLab(t)
	p := l.Config.PlanOf(pfconf.Inet)
	f := fenceIn(t, l, p.Local.Addr(), p.Remote.Addr())
	ignoreEcho(t, l, "1")
	back := time.AfterFunc(20*time.Millisecond, func() { ignoreEcho(t, l, "0") })
	defer back.Stop()
	if _, err := f.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.seq != 2 {
		t.Errorf("%d requests, want 2", f.seq)
	}
}

// A host is lost after several requests, however slow it was before; and the time in which this
// process did not listen is not the other host's silence.
func TestFenceSlow(t *testing.T) {
	l := fenceLab(t)
	p := l.Config.PlanOf(pfconf.Inet)
	f := fenceIn(t, l, p.Local.Addr(), p.Remote.Addr())
	f.Timeout, f.rtt = 200*time.Millisecond, time.Second
	ignoreEcho(t, l, "1")
	_, err := f.Pass(t.Context())
	if want := "no answer to 5 echo requests in 500ms"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("after a slow answer: %v, want %s", err, want)
	}

	ignoreEcho(t, l, "0")
	w := &fenceWave{first: f.seq + 1, sent: fenceTries, pause: f.Timeout / 4, resend: time.Now().Add(-time.Hour)}
	if came, err := f.step(w, true); !came || err != nil {
		t.Errorf("after an hour without the processor: answered %v, %v", came, err)
	}
}

func BenchmarkFence(b *testing.B) {
	l := fenceLab(b)
	for _, family := range l.Families {
		p := l.Config.PlanOf(family)
		b.Run(family.String(), func(b *testing.B) {
			f := fenceIn(b, l, p.Local.Addr(), p.Remote.Addr())
			for b.Loop() {
				if _, err := f.Pass(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(family.String()+"/26callers", func(b *testing.B) {
			f := fenceIn(b, l, p.Local.Addr(), p.Remote.Addr())
			for b.Loop() {
				var all sync.WaitGroup
				for range 26 {
					all.Go(func() {
						if _, err := f.Pass(b.Context()); err != nil {
							b.Error(err)
						}
					})
				}
				all.Wait()
			}
			b.ReportMetric(float64(f.seq)/float64(b.N), "echoes/op")
		})
	}
}

// A fence with Drain sends itself a datagram first, and one that never gets any does without.
func TestFenceDrain(t *testing.T) {
	l := fenceLab(t)
	eachFamily(t, l, func(t *testing.T, p lab.AddressPlan) { drains(t, l, p) })
}

func drains(t *testing.T, l *lab.Lab, p lab.AddressPlan) {
	f := fenceIn(t, l, p.Local.Addr(), p.Remote.Addr())
	if err := l.In(lab.Local, f.Drain); err != nil {
		t.Fatal(err)
	}
	pass := func() {
		t.Helper()
		if _, err := f.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for n := range uint16(3) {
		if pass(); f.own == nil || f.seq != 2*(n+1) {
			t.Errorf("pass %d ended with request %d", n, f.seq)
		}
	}
	// A host that is slow.
	own := f.own.(*net.UDPConn)
	f.own = lateConn{own}
	if pass(); f.own == nil {
		t.Error("it does not ask a slow host again")
	}
	f.own = own
	// What came before must come.
	dropAll(t, own)
	if _, err := f.Pass(t.Context()); err == nil || !strings.Contains(err.Error(), "no datagram to ") || f.own == nil {
		t.Errorf("without a datagram: %v", err)
	}
	// A packet filter that drops all.
	f = fenceIn(t, l, p.Local.Addr(), p.Remote.Addr())
	if err := l.In(lab.Local, f.Drain); err != nil {
		t.Fatal(err)
	}
	dropAll(t, f.own.(*net.UDPConn))
	if pass(); f.own != nil {
		t.Error("it goes on asking")
	}
	pass()
}

// lateConn sends later than fenceResend, as a slow host does.
type lateConn struct{ *net.UDPConn }

func (c lateConn) WriteTo(b []byte, to net.Addr) (int, error) {
	b = bytes.Clone(b)
	time.AfterFunc(3*fenceResend, func() { _, _ = c.UDPConn.WriteTo(b, to) })
	return len(b), nil
}

// dropAll has a socket get nothing.
func dropAll(t *testing.T, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: 1, Filter: &nothing[0]})
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}
