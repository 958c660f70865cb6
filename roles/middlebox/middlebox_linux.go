// Package middlebox has the kernel stand between a client and a server and divert the client's
// connection, on ways that the run's two hosts are not joined by: a bridge, for example.
//
// Each of the three hosts is a network namespace that ends with the step. The client's cable ends
// at the middle's interface left0, the server's at right0. Hardware addresses are known to all.
package middlebox

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
	"pfdivert/pfconf/rtnetlink"
)

// patience bounds the wait for what a kernel that does not divert may never bring, and which takes
// milliseconds on an idle machine. What must come may take the cell's time.
const patience = 30 * time.Second

// Run carries the step out with the engine of the packet filter that c names, and writes to log
// what happened. The other fields of c but Omit are not used.
func Run(ctx context.Context, st script.Middlebox, c nft.Config, log io.Writer) (m *script.Middle, err error) {
	ctx, cancel := context.WithTimeout(ctx, script.CellTimeout)
	defer cancel()
	nft.OnOwnThread(func() {
		b := &box{Middlebox: st, log: log, accepted: make(chan accepted, 16)}
		defer b.close()
		if err = stay(); err == nil {
			err = b.build(ctx)
		}
		if err == nil {
			m, err = b.divert(ctx, c)
		}
	})
	return m, err
}

// box is the three hosts. Its thread is in the namespace of one of them.
type box struct {
	script.Middlebox
	log                    io.Writer
	client, middle, server *host
	left, right            rtnetlink.Link
	towards                rtnetlink.Link // the middle's interface by which packets of the client's come to IP
	accepted               chan accepted
	listeners              []net.Listener
}

// stay keeps the thread on its processor, on which the kernel processes what the thread sends, and
// what is sent at that, in order: what a later connection has met, an earlier one has met as well.
func stay() error {
	var may, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	skip := unix.Gettid() % max(may.Count(), 1) // not all on one
	for cpu := range len(may) * 64 {
		if !may.IsSet(cpu) {
			continue
		}
		if skip == 0 {
			one.Set(cpu)
			break
		}
		skip--
	}
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, &one))
}

// host is one of them.
type host struct {
	ns     *os.File
	routes *rtnetlink.Conn
}

// accepted is a connection that a listener has accepted.
type accepted struct {
	at   script.Listener
	conn net.Conn
}

// close closes what is open. The namespaces end with the thread.
func (b *box) close() {
	for _, l := range b.listeners {
		_ = l.Close()
	}
	for {
		select {
		case a := <-b.accepted:
			_ = a.conn.Close()
			continue
		default:
		}
		break
	}
	for _, h := range []*host{b.client, b.middle, b.server} {
		if h == nil {
			continue
		}
		if h.routes != nil {
			_ = h.routes.Close()
		}
		_ = h.ns.Close()
	}
}

// newHost has the thread enter a new namespace.
func newHost() (*host, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	h := &host{ns: ns}
	h.routes, err = rtnetlink.Dial()
	return h, err
}

// enter has the thread enter the host's namespace.
func (h *host) enter() error {
	return os.NewSyscallError("setns", unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET))
}

// divert runs the control, loads the rule and runs the client's connection.
func (b *box) divert(ctx context.Context, c nft.Config) (_ *script.Middle, err error) {
	if err := b.server.enter(); err != nil {
		return nil, err
	}
	for _, name := range []netip.AddrPort{b.Server, b.Beside} {
		if err := b.listen(ctx, script.AtServer, name, listener{}); err != nil {
			return nil, err
		}
	}
	if err := b.middle.enter(); err != nil {
		return nil, err
	}
	if err := b.proxies(ctx); err != nil {
		return nil, err
	}
	for _, to := range []netip.AddrPort{b.Server, b.Beside} {
		if err := b.reaches(ctx, to); err != nil {
			return nil, fmt.Errorf("control, before there is a rule: %w", err)
		}
	}
	beside, err := b.besides(ctx)
	if err != nil {
		return nil, err
	}
	defer beside.close()
	if err := b.middle.enter(); err != nil {
		return nil, err
	}
	fw, err := nft.Open(ctx, nft.Config{Interface: b.towards.Name, Fakes: []netip.Prefix{single(b.Server.Addr())},
		Engine: c.Engine, Omit: c.Omit})
	if err != nil {
		return nil, err
	}
	defer func() {
		// Sockets of the middle's are all that outlives it.
		if closed := fw.Close(context.WithoutCancel(ctx)); err == nil {
			err = closed
		}
	}()
	rule := b.Rule
	if b.omits(script.MiddleRule) {
		rule.From = b.Beside.Addr()
	}
	if err := fw.Change(ctx, []pfconf.Rule{rule}, nil); err != nil {
		return nil, err
	}
	if err := b.takeUp(); err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(b.log, "%s: rule %s loaded, for what comes by %s\n", b.Joint, rule.Label, b.towards.Name)
	m := &script.Middle{}
	if m.Before, err = beside.phase(ctx, fw); err != nil {
		return nil, err
	}
	if m.Diverted, err = b.talk(ctx, b.Client, b.Server); err != nil {
		return nil, err
	}
	if m.After, err = beside.phase(ctx, fw); err != nil {
		return nil, err
	}
	m.Beside = b.again(ctx, beside)
	counters, err := fw.Counters(ctx, []string{b.Rule.Label})
	m.Counters = counters[b.Rule.Label]
	return m, err
}

func (b *box) omits(p script.Piece) bool { return slices.Contains(b.Omit, p) }

// single is the prefix of one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
