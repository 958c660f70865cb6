// Package bsd builds the two hosts of a run on one BSD machine: LOCAL and REMOTE
// are routing domains joined by a pair(4) on OpenBSD, and jails with network
// stacks of their own joined by an epair(4) on FreeBSD.
//
// Unlike a lab of network namespaces it is not gone with its processes. So each
// change is recorded before it is made, and undone by Close or, when the process
// that made it was killed, by Undo.
package bsd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// Layout is which lab to build.
type Layout struct {
	// Single gives each family one FAKE address instead of a prefix.
	Single bool `json:"single,omitempty"`
	// Domain is REMOTE's routing domain, 0 for the one that every host has. Only
	// OpenBSD has others.
	Domain int `json:"domain,omitempty"`
	// PF switches on the pf of a FreeBSD REMOTE, beside its ipfw.
	PF bool `json:"pf,omitempty"`
	// Router gives REMOTE a second cable to LOCAL, and a third host behind it.
	Router bool `json:"router,omitempty"`
}

// FamilyAddresses are those of one family. All cells share LOCAL's address: the BSDs have no route
// that makes a whole prefix the host's own.
type FamilyAddresses struct {
	Local  netip.Addr   `json:"local"`
	Remote netip.Addr   `json:"remote"`
	Fakes  netip.Prefix `json:"fakes"` // LOCAL routes it via REMOTE, and no one has it
}

// Entry is how a command and an agent enter one host of the lab.
type Entry struct {
	Enter []string `json:"enter,omitempty"` // the command to put before the program
	Args  []string `json:"args"`            // the agent's arguments
}

// Command returns what precedes a command that a person runs on the host.
func (h Entry) Command() []string {
	if len(h.Enter) > 0 {
		return h.Enter
	}
	return []string{"route", "-T" + h.Args[len(h.Args)-1], "exec"}
}

// Second is REMOTE's second network, where it is a router; else there is none.
type Second struct {
	Gateways map[pfconf.Family]netip.Addr `json:"gateways,omitempty"` // LOCAL's addresses there
	// Mirrors are the addresses of a third host, behind REMOTE, that has LOCAL's connections with
	// it come back to LOCAL, from itself; none where the kernel has no pf.
	Mirrors map[pfconf.Family]netip.Addr `json:"mirrors,omitempty"`
	// Domain, if not 0, is the third host's routing domain (OpenBSD): it has nothing come back, and
	// LOCAL's sockets can be there.
	Domain int `json:"domain,omitempty"`
}

// Lab is a lab that was built.
type Lab struct {
	Local     Entry                             `json:"local"`
	Remote    Entry                             `json:"remote"`
	Addresses map[pfconf.Family]FamilyAddresses `json:"addresses"`
	Second    Second                            `json:"second"`

	steps []pfconf.Undo
	run   program.Runner
}

// Build builds the lab of a system (runtime.GOOS) by the commands that run executes, and records
// each change in the journal before it makes it. Close the lab even if there is an error: it has
// what was made before.
func Build(ctx context.Context, system string, c Layout, run program.Runner, journal pfconf.Journal) (*Lab, error) {
	b := &builder{ctx: ctx, run: run, journal: journal, lab: &Lab{run: run}}
	var err error
	switch {
	case system == "openbsd":
		err = b.domains(c)
	case c.Domain != 0:
		err = fmt.Errorf("%s has no routing domains", system)
	case system == "freebsd":
		err = b.jails(c, os.Getpid())
	default:
		err = fmt.Errorf("%s can't be both hosts this way", system)
	}
	if err != nil {
		err = fmt.Errorf("lab: %w", err)
	}
	return b.lab, err
}

// Close undoes all changes, the last first. A change that cannot be undone does not prevent the
// others. A second call retries what failed.
func (l *Lab) Close(ctx context.Context) error {
	var errs []error
	var left []pfconf.Undo
	for _, u := range slices.Backward(l.steps) {
		if err := Undo(ctx, l.run, u); err != nil {
			errs = append(errs, err)
			left = append(left, u)
		}
	}
	slices.Reverse(left)
	l.steps = left
	return errors.Join(errs...)
}

// The steps that Undo knows.
const (
	undoInterface = "lab/interface" // name, two routing domains that may know its addresses
	undoEpair     = "lab/epair"     // name, LOCAL's and REMOTE's jail
	undoJail      = "lab/jail"      // name
)

// Undo undoes a change that Build recorded. It does nothing if the change was not made, or if the
// name now belongs to something that is not a lab's.
func Undo(ctx context.Context, run program.Runner, u pfconf.Undo) error {
	t := tools{ctx, run}
	switch {
	case u.Do == undoInterface && len(u.Args) == 3:
		return t.removeInterface(u.Args[0], u.Args[1:])
	case u.Do == undoEpair && len(u.Args) == 3:
		return t.removeEpair(u.Args[0], u.Args[1:])
	case u.Do == undoJail && len(u.Args) == 1:
		return t.removeJail(u.Args[0])
	}
	return fmt.Errorf("undo %q %q: not a step of a lab", u.Do, u.Args)
}

// Describe returns what a step undoes, or "" if Undo does not know the step.
func Describe(u pfconf.Undo) string {
	switch {
	case u.Do == undoInterface && len(u.Args) == 3:
		return fmt.Sprintf("destroy the lab's interface %s, and the states of its addresses", u.Args[0])
	case u.Do == undoEpair && len(u.Args) == 3:
		return fmt.Sprintf("destroy the lab's interfaces %[1]sa and %[1]sb", u.Args[0])
	case u.Do == undoJail && len(u.Args) == 1:
		return fmt.Sprintf("remove the lab's jail %s", u.Args[0])
	}
	return ""
}

// mark is the description of a lab's interfaces: what has another is someone else's.
const mark = "pfdivert lab"

// builder is a lab that is being built.
type builder struct {
	ctx     context.Context
	run     program.Runner
	journal pfconf.Journal
	lab     *Lab
}

func (b *builder) tools() tools { return tools{b.ctx, b.run} }

// make records how a change is undone and makes it.
func (b *builder) make(u pfconf.Undo, argv ...string) error {
	if err := b.journal(u); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	b.lab.steps = append(b.lab.steps, u)
	return b.tools().do(argv...)
}

// all runs commands one after the other, up to the first that fails.
func (b *builder) all(commands ...[]string) error {
	for _, argv := range commands {
		if err := b.tools().do(argv...); err != nil {
			return err
		}
	}
	return nil
}

// tools runs the system's programs.
type tools struct {
	ctx context.Context
	run program.Runner
}

// toolError is what a program complained about.
type toolError struct {
	argv []string
	said string
	exit int
}

func (e *toolError) Error() string {
	return fmt.Sprintf("%s: %s (exit status %d)", strings.Join(e.argv, " "), strings.ReplaceAll(e.said, "\n", "; "),
		e.exit)
}

// ask runs a program and gives what it printed. That it failed is a *toolError.
func (t tools) ask(argv ...string) (string, error) { return t.exchange("", argv) }

func (t tools) exchange(stdin string, argv []string) (string, error) {
	r, err := t.run(t.ctx, program.Command{Argv: argv, Stdin: stdin})
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	if r.Status != 0 {
		return "", &toolError{argv, strings.TrimSpace(r.Stdout + r.Stderr), r.Status}
	}
	return r.Stdout, nil
}

func (t tools) do(argv ...string) error {
	_, err := t.ask(argv...)
	return err
}

// tell runs a program that reads a text.
func (t tools) tell(stdin string, argv ...string) error {
	_, err := t.exchange(stdin, argv)
	return err
}

// said reports whether the error is a program's that said this.
func said(err error, what ...string) bool {
	var e *toolError
	return errors.As(err, &e) && slices.ContainsFunc(what, func(w string) bool { return strings.Contains(e.said, w) })
}

// hinted is an error with what can be done about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string  { return h.hint }
func (h hinted) Unwrap() error { return h.error }

// words splits a command line that has no quotes.
func words(format string, args ...any) []string { return strings.Fields(fmt.Sprintf(format, args...)) }
