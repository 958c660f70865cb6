package agent

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/lab/bsd"
	"pfdivert/roles/lab/labtest"
)

// jailHost answers a lab's commands as a FreeBSD host on which all succeed.
type jailHost struct {
	mu  sync.Mutex
	log []string
}

func (h *jailHost) run(_ context.Context, c program.Command) (r program.Output, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	command := strings.Join(c.Argv, " ")
	h.log = append(h.log, command)
	if command == "ifconfig epair0a" {
		r.Stdout = "epair0a: flags=8843<UP,BROADCAST> metric 0 mtu 1500\n\tdescription: pfdivert lab\n"
	}
	return r, nil
}

// An agent's lab stands until the agent undoes all; its journal says how, and a second lab on
// the host waits for it.
func TestLab(t *testing.T) {
	labtest.Need(t)
	ctx := t.Context()
	h := &jailHost{}
	defer func(was func(context.Context, bsd.Layout, pfconf.Journal) (*bsd.Lab, error)) { buildBSD = was }(buildBSD)
	buildBSD = func(ctx context.Context, c bsd.Layout, journal pfconf.Journal) (*bsd.Lab, error) {
		return bsd.Build(ctx, "freebsd", c, h.run, journal)
	}
	d := newState(t)
	opt := Options{StateDir: string(d), Heartbeat: slow}
	first, second := serve(t, opt, slow), serve(t, opt, slow)
	made, err := first.conn.Lab(ctx, LabRequest{By: "anna@laptop"})
	check(t, err)
	if !slices.Equal(made.Remote.Args, []string{"-lab-host", "epair0b"}) || made.Remote.Enter[0] != "jexec" ||
		made.Addresses[pfconf.Inet6].Remote.String() != "fd00:188:1::2" {
		t.Errorf("told of the lab: %+v", made)
	}
	left, err := Cleanup(ctx, string(d), true)
	check(t, err)
	if len(left) != 1 || !left[0].Alive || len(left[0].Steps) != 3 || left[0].By != "anna@laptop" {
		t.Errorf("journals: %+v", left)
	}
	var f *script.Error
	if _, err := second.conn.Lab(ctx, LabRequest{}); !errors.As(err, &f) || f.Code != script.CodeBusy ||
		!strings.Contains(f.Text, "anna@laptop") {
		t.Errorf("a second lab: %v", err)
	}
	if _, err := first.conn.Lab(ctx, LabRequest{}); err == nil {
		t.Error("an agent has two labs")
	}
	if slices.ContainsFunc(h.log, func(c string) bool { return strings.Contains(c, "destroy") }) {
		t.Errorf("something was undone too early: %q", h.log)
	}
	check(t, first.conn.Bye(ctx))
	if end := h.log[len(h.log)-3:]; end[0] != "ifconfig epair0a destroy" || !strings.HasPrefix(end[1], "jail -r ") ||
		!strings.HasPrefix(end[2], "jail -r ") {
		t.Errorf("undone: %q", end)
	}
	_, err = second.conn.Lab(ctx, LabRequest{})
	check(t, err)
	check(t, second.conn.Bye(ctx))
	if _, err := os.Stat(string(d)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state directory is left: %v", err)
	}
}

// What could not be undone stays in the journal, for a cleanup.
func TestLabStays(t *testing.T) {
	labtest.Need(t)
	ctx := t.Context()
	h := &jailHost{}
	run := func(ctx context.Context, c program.Command) (program.Output, error) {
		if r, err := h.run(ctx, c); c.Argv[0] != "jail" || c.Argv[1] != "-r" {
			return r, err
		}
		return program.Output{Stderr: "jail: operation not permitted\n", Status: 1}, nil
	}
	defer func(was func(context.Context, bsd.Layout, pfconf.Journal) (*bsd.Lab, error)) { buildBSD = was }(buildBSD)
	buildBSD = func(ctx context.Context, c bsd.Layout, journal pfconf.Journal) (*bsd.Lab, error) {
		return bsd.Build(ctx, "freebsd", c, run, journal)
	}
	d := newState(t)
	s := serve(t, Options{StateDir: string(d), Heartbeat: slow}, slow)
	_, err := s.conn.Lab(ctx, LabRequest{})
	check(t, err)
	if err := s.conn.Bye(ctx); err == nil || !strings.Contains(err.Error(), "operation not permitted") {
		t.Errorf("bye: %v", err)
	}
	left, err := Cleanup(ctx, string(d), true)
	check(t, err)
	if len(left) != 1 || !left[0].Stale() || len(left[0].Steps) != 3 {
		t.Errorf("journals: %+v", left)
	}
}
