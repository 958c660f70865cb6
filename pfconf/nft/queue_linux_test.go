package nft

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/netlink"
)

// queueHandles are the handles of the rules in each queue's chain.
func (f *Firewall) queueHandles(t testing.TB) map[string][]uint64 {
	t.Helper()
	f.rx.mu.Lock()
	defer f.rx.mu.Unlock()
	handles := map[string][]uint64{}
	check(t, f.rx.dumpRules(false, func(m netlink.Message) {
		h, err := handleOf(m)
		check(t, err)
		name := strings.TrimSuffix(string(netlink.Attribute(attributesOf(m), unix.NFTA_RULE_CHAIN)), "\x00")
		if strings.HasPrefix(name, "queue-") {
			handles[name] = append(handles[name], h)
		}
	}))
	return handles
}

func wantQueues(t *testing.T, f *Firewall, want ...string) {
	t.Helper()
	got := f.queueHandles(t)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("queues' chains (- want, + got):\n%s", diff)
	}
	for name, handles := range got {
		if len(handles) != 1 {
			t.Errorf("chain %s has %d rules, want 1", name, len(handles))
		}
	}
}

// A queue's chain is made once and stays as it is, whatever rules come and go.
func TestQueueStays(t *testing.T) {
	f := newNamespace(t).open(t, testConfig())
	a, b := packetRule(pfconf.Inet, pfconf.In, 1, 100), packetRule(pfconf.Inet6, pfconf.Out, 2, 100)
	c := packetRule(pfconf.Inet, pfconf.Out, 3, 101)
	check(t, f.Change(t.Context(), []pfconf.Rule{a}, nil))
	wantQueues(t, f, "queue-100")
	first := f.queueHandles(t)["queue-100"][0]
	// With others of the same number and of a new one, in one transaction.
	check(t, f.Change(t.Context(), []pfconf.Rule{b, c}, []string{a.Label}))
	check(t, f.Change(t.Context(), nil, []string{b.Label, c.Label}))
	wantInForce(t, f)
	check(t, f.Load(t.Context(), []pfconf.Rule{c, b}))
	check(t, f.Load(t.Context(), []pfconf.Rule{a}))
	wantQueues(t, f, "queue-100", "queue-101")
	wantInForce(t, f, a.Label, a.Label+" done")
	if now := f.queueHandles(t)["queue-100"][0]; now != first {
		t.Errorf("the rule of queue-100 was %d and is %d: it has been made again", first, now)
	}
}

// Rules of both directions that share a queue, which an earlier rule has used,
// have their own counters, and each packet is queued once.
func TestSharedQueue(t *testing.T) {
	l := newLab(t)
	f := l.remote.open(t, testConfig())
	in, out := packetRule(pfconf.Inet, pfconf.In, 7004, 100), packetRule(pfconf.Inet, pfconf.Out, 7004, 100)
	earlier := packetRule(pfconf.Inet, pfconf.In, 1, 100)
	check(t, f.Change(t.Context(), []pfconf.Rule{earlier}, nil))
	check(t, f.Change(t.Context(), []pfconf.Rule{in, out}, []string{earlier.Label}))
	var q *socket
	var err error
	l.remote.do(t, func() { q, err = openSocket() })
	check(t, err)
	defer q.close()
	bindQueue(t, q, 100)
	for i, r := range []pfconf.Rule{in, out, in} {
		from, to := l.local, l.remote
		if r.Direction == pfconf.Out {
			from, to = to, from
		}
		server, client := udpPair(t, from, to, r)
		_, err := client.Write(fmt.Append(nil, "packet ", i))
		check(t, err)
		acceptQueued(t, q, 100)
		check(t, server.SetReadDeadline(ended()))
		b := make([]byte, 100)
		n, err := server.Read(b)
		if want := fmt.Sprint("packet ", i); err != nil || string(b[:n]) != want {
			t.Errorf("received %q, %v, want %q", b[:n], err, want)
		}
		check(t, server.Close())
	}
	for label, n := range map[string]uint64{in.Label: 2, out.Label: 1} {
		if c, want := f.counted(t, label), (pfconf.Counters{Matched: n, Done: n}); c != want {
			t.Errorf("%s: counters %+v, want %+v", label, c, want)
		}
	}
}

// When the transaction that would make a chain fails, the next one makes it.
func TestQueueAfterFailure(t *testing.T) {
	f := newNamespace(t).open(t, testConfig())
	rules, labels := numbered("a", 2)
	check(t, f.Change(t.Context(), rules, nil))
	// Someone else removes rules of ours, which cannot be removed then.
	r := f.rx.transaction()
	r.delRule(f.rules[labels[0]].parts[0])
	r.delRule(f.rules[labels[1]].parts[0])
	check(t, f.rx.commitAll(r))

	a, b := packetRule(pfconf.Inet, pfconf.In, 1, 100), packetRule(pfconf.Inet, pfconf.In, 2, 101)
	if err := f.Change(t.Context(), []pfconf.Rule{a}, labels[:1]); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a change with a rule that has gone: %v, want %v", err, unix.ENOENT)
	}
	wantQueues(t, f)
	check(t, f.Change(t.Context(), []pfconf.Rule{a}, nil))
	wantQueues(t, f, "queue-100")

	// The change that would make the chain fails, another that needs it does not.
	same := packetRule(pfconf.Inet, pfconf.Out, 2, 101)
	bad := &change{ctx: t.Context(), add: []pfconf.Rule{b}, remove: labels[1:]}
	good := &change{ctx: t.Context(), add: []pfconf.Rule{same}}
	f.commitChanges([]*change{bad, good})
	if good.err != nil || !errors.Is(bad.err, unix.ENOENT) {
		t.Errorf("errors %v, %v: want only the first, %v", bad.err, good.err, unix.ENOENT)
	}
	wantQueues(t, f, "queue-100", "queue-101")

	// A chain that the driver does not know of, since the answers were lost, does not keep it.
	clear(f.queues)
	check(t, f.Change(t.Context(), []pfconf.Rule{b}, nil))
	wantInForce(t, f, a.Label, a.Label+" done", b.Label, b.Label+" done", same.Label, same.Label+" done")
}

// Someone who removes the table is named, whatever is first missed of it.
func TestQueueWithoutTable(t *testing.T) {
	f := newNamespace(t).open(t, testConfig())
	r := f.rx.transaction()
	r.delTable(own, 0)
	check(t, f.rx.commitAll(r))
	err := f.Change(t.Context(), []pfconf.Rule{packetRule(pfconf.Inet, pfconf.In, 1, 100)}, nil)
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(),
		"has another process removed table inet pfdivert?") {
		t.Errorf("got %v", err)
	}
}

// With many numbers the chains that no rule needs go.
func TestManyQueues(t *testing.T) {
	f := newNamespace(t).open(t, testConfig())
	var rules []pfconf.Rule
	for i := range uint16(maxQueues) {
		rules = append(rules, packetRule(pfconf.Inet, pfconf.In, 1+i, 1+i))
	}
	for some := range slices.Chunk(rules, 128) {
		check(t, f.Change(t.Context(), some, nil))
	}
	if n := len(f.queueHandles(t)); n != maxQueues {
		t.Errorf("%d chains, want %d", n, maxQueues)
	}
	check(t, f.Load(t.Context(), rules[maxQueues-2:]))
	// The last two still have their rules. The first's chain is dropped and made
	// again in one transaction.
	check(t, f.Change(t.Context(), []pfconf.Rule{packetRule(pfconf.Inet, pfconf.In, 9, 9999), rules[0]}, nil))
	wantQueues(t, f, "queue-1", "queue-1023", "queue-1024", "queue-9999")
}
