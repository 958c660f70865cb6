package twin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Twin is a copy of a host's network configuration that flows can be run in. It is not safe for
// concurrent use. The caller closes it.
//
// There are two namespaces. The copy is in Inside. The other end of each of its devices is in
// Outside, with the same name and the same index, and there is everyone else: clients and the
// internet.
type Twin struct {
	Config  *Snapshot
	Inside  *Netns
	Outside *Netns
	// Differences are what is not the same in the twin as on the host.
	Differences []Difference
	// Warnings are stand-ins that could not be made, one line each.
	Warnings []string

	hints      hints
	outers     []outer
	introduced map[int][]netip.Addr // neighbors that the twin was given, by device
	stands     []*stand             // of the host's sockets
	outside    map[place]*stand     // of everyone else
	uplinks    map[int]bool
	own        map[netip.Addr]bool // the host's addresses
	queues     *queues             // nil for none
	player     *player
}

// maxWarnings bounds Twin.Warnings: that no more sockets may be opened is the same for all that
// remain.
const maxWarnings = 8

// Build makes the twin of a host: its configuration in a namespace, what surrounds it, and
// stand-ins for its sockets.
func Build(ctx context.Context, c *Snapshot) (t *Twin, err error) {
	t = &Twin{
		Config: c, introduced: map[int][]netip.Addr{}, outside: map[place]*stand{}, own: map[netip.Addr]bool{},
		hints: c.hints(), uplinks: c.uplinks(),
	}
	defer func() {
		if err != nil {
			t.Close()
			t = nil
		}
	}()
	for _, a := range c.Addrs {
		t.own[a.Local] = true
	}
	if t.Inside, err = NewNetns(); err != nil {
		return t, err
	}
	if t.Outside, err = NewNetns(); err != nil {
		return t, err
	}
	if t.Differences, err = c.Replay(ctx, t.Inside, t.Outside); err != nil {
		return t, err
	}
	return t, t.prepare(ctx)
}

// prepare makes what is around the copy, and the stand-ins.
func (t *Twin) prepare(ctx context.Context) error {
	if err := t.surround(ctx); err != nil {
		return err
	}
	if err := t.introduce(ctx, nil); err != nil {
		return err
	}
	var err error
	if t.player, err = newPlayer(); err != nil {
		return err
	}
	if err := t.Outside.Do(t.raise); err != nil {
		return err
	}
	if err := t.Inside.Do(t.queue); err != nil {
		return err
	}
	// One that can't be made says so: the rest of the twin is right without it.
	err = t.Inside.Do(t.listen)
	for i, e := range eachError(err) {
		if i == maxWarnings {
			t.Warnings = append(t.Warnings, "… and more")
			break
		}
		t.Warnings = append(t.Warnings, e.Error())
	}
	for _, s := range t.stands {
		if err := t.player.add(s.fd, unix.EPOLLIN, s); err != nil {
			return err
		}
	}
	return nil
}

// raise makes the player's fence, where one proves something.
func (t *Twin) raise() error {
	if spread() {
		return nil
	}
	f, err := newFence()
	if err != nil {
		return err
	}
	t.player.fence = f
	return t.player.add(f.in, unix.EPOLLIN, f)
}

// queue makes stand-ins for programs that packets are queued to.
func (t *Twin) queue() error {
	if len(t.Config.Queues) == 0 {
		return nil
	}
	q, err := newQueues(t.Config.Queues)
	if err != nil {
		return err
	}
	t.queues = q
	return t.player.add(q.fd, unix.EPOLLIN, q)
}

// eachError returns the errors that were joined.
func eachError(err error) []error {
	var all interface{ Unwrap() []error }
	if errors.As(err, &all) {
		return all.Unwrap()
	} else if err != nil {
		return []error{err}
	}
	return nil
}

// Close ends the twin: its sockets, and with them its namespaces.
func (t *Twin) Close() {
	for _, s := range t.stands {
		_ = unix.Close(s.fd)
	}
	for _, s := range t.outside {
		_ = unix.Close(s.fd)
	}
	if t.queues != nil {
		t.queues.close()
	}
	if t.player != nil {
		t.player.close()
	}
	for _, n := range []*Netns{t.Inside, t.Outside} {
		if n != nil {
			_ = n.Close()
		}
	}
}

// Play runs the flows, all at once, and returns what happened to each, in their order. It ends when
// all are done or no packet of theirs is left. An error is of the machinery: lost flows are
// results.
func (t *Twin) Play(ctx context.Context, flows []Flow) ([]FlowResult, error) {
	if err := t.introduce(ctx, flows); err != nil {
		return nil, err
	}
	r := t.newRun(flows)
	defer r.end()
	processor := -1
	on := func(f func() error) func() error {
		return func() error {
			n, undo, err := pin(processor)
			if err != nil { // then nothing is proved by a fence
				t.player.lower()
				return f()
			}
			processor = n
			defer undo()
			return f()
		}
	}
	if err := t.Outside.Do(on(r.outside)); err != nil {
		return nil, fmt.Errorf("outside of the twin: %w", err)
	}
	if err := t.Inside.Do(on(func() error { return r.play(ctx) })); err != nil {
		return nil, fmt.Errorf("run flows: %w", err)
	}
	return r.results(), nil
}
