// Package faults is the table of what can be broken on purpose in a lab, and of
// what each target must say then: a suite is worth what it notices.
package faults

import (
	"cmp"
	"slices"

	"pfdivert/matrix"
	"pfdivert/matrix/injection"
	"pfdivert/pfconf"
)

// Systems are those that have labs (runtime.GOOS), each with the firewall of its REMOTE.
var Systems = map[string]string{"linux": "nftables", "openbsd": "pf", "freebsd": "ipfw"}

// Fault is one thing that is broken, in a lab of its own.
type Fault struct {
	Name  string
	About string // in a line, what is broken
	// On are the systems in whose labs it is; none for Linux alone.
	On []string
	// Single breaks it in a lab with one LOCAL and one FAKE address per family.
	Single bool
	// Engine, if not empty, is that of the rules, in place of the run's.
	Engine pfconf.Engine
	// Without are engines whose rules do without what is broken, or come before it.
	Without []pfconf.Engine
	// Tame: with it claims that are dangerous are not, and are run.
	Tame bool
	// Omit are the pieces of this program's own that are left out (matrix.Options.Omit).
	Omit []string
	// Local and Remote are what is done to the hosts.
	Local, Remote []injection.Action
	// Cause is the code of the explanation that all who notice must give (docs/reasons.md).
	Cause string
	// expect returns what a cell must say that is concerned, and nothing for one that is
	// not.
	expect func(Part) Want
	// claims, in place of expect, gives what each claim must say on a system: the claims are
	// run then.
	claims func(system string, t matrix.Target) Want
}

// IsOn reports whether the fault is one of the system's labs.
func (f Fault) IsOn(system string) bool { return slices.Contains(f.Where(), system) }

// With reports whether it can be run with an engine that was chosen.
func (f Fault) With(e pfconf.Engine) bool {
	return (f.Engine == "" || e == "" || f.Engine == e) && !slices.Contains(f.Without, e)
}

// Where are the systems in whose labs it is.
func (f Fault) Where() []string {
	if f.On == nil {
		return []string{"linux"}
	}
	return f.On
}

// Want is what a target must say of a fault. A target that is not concerned passes
// and has neither reason nor cause.
type Want struct {
	Verdict matrix.Verdict
	Reason  string
	Cause   string
}

// pass is what a cell says that needs nothing of what is broken.
var pass = Want{Verdict: matrix.Pass}

func fails(reason string) Want { return Want{matrix.Fail, reason, ""} }
func errs(reason string) Want  { return Want{matrix.Error, reason, ""} }

// Want is what the target must say on the system: what its first cell says that does not pass.
func (f Fault) Want(system string, t matrix.Target) Want {
	if t.Claim != nil {
		w := f.claims(system, t)
		if w.Cause == anyCause && f.Cause != "" {
			w.Cause = f.Cause
		}
		return w
	}
	for _, p := range parts(system, t) {
		if w := f.expect(p); w.Verdict != matrix.Pass {
			if w.Cause == "" {
				w.Cause = f.Cause
			}
			return w
		}
	}
	return pass
}

// Targets are those that can be run with the fault on the system: the suite's, or the claims of
// its kernel.
func (f Fault) Targets(system string) []matrix.Target {
	if f.claims == nil {
		return matrix.Targets()
	}
	return slices.DeleteFunc(matrix.Claims(), func(t matrix.Target) bool { return t.Claim.By[Systems[system]] == "" })
}

// Concerned are those of the system's targets that must notice the fault. None may: then what is
// broken is no fault as far as these targets can tell.
func (f Fault) Concerned(system string) []matrix.Target {
	return slices.DeleteFunc(f.Targets(system), func(t matrix.Target) bool { return f.Want(system, t) == pass })
}

// bystanders is how many targets Sample has that must not notice.
const bystanders = 4

// Sample are the targets that must notice the fault, and some of those that must not: where a lab
// and each cell in it take long.
func (f Fault) Sample(system string) []matrix.Target {
	all := f.Targets(system)
	others := slices.DeleteFunc(slices.Clone(all), func(t matrix.Target) bool { return f.Want(system, t) != pass })
	some := map[string]bool{}
	for i := range min(bystanders, len(others)) {
		some[others[i*len(others)/bystanders].Name] = true
	}
	return slices.DeleteFunc(all, func(t matrix.Target) bool { return f.Want(system, t) == pass && !some[t.Name] })
}

// Options adds what is broken to the options of a run in the lab.
func (f Fault) Options(opt matrix.Options) matrix.Options {
	opt.Omit, opt.BreakLocal, opt.BreakRemote = f.Omit, f.Local, f.Remote
	opt.Dangerous = opt.Dangerous || f.Tame
	opt.Filter = cmp.Or(f.Engine, opt.Filter)
	return opt
}

// All lists the faults: first what this program can leave out itself, then what can be
// wrong with the hosts.
func All() []Fault {
	all := slices.Concat(pieces, ofXT(pfconf.XT), ofXT(pfconf.XTLegacy), ofBPF, ofLookup, hosts, claims)
	return slices.DeleteFunc(all, func(f Fault) bool { return !f.Engine.Built() })
}

// On returns those of the faults that are a system's labs'.
func On(system string, all []Fault) []Fault {
	return slices.DeleteFunc(all, func(f Fault) bool { return !f.IsOn(system) })
}

// Unexplained is the same where the explanation is not looked at.
func (w Want) Unexplained() Want {
	if w != pass {
		w.Cause = anyCause
	}
	return w
}

// Judgement is what happened to one target in a run with a fault.
type Judgement struct {
	Result matrix.Result
	Want   Want
}

// Wrong says what is wrong with the result, "" when it is as it must be. What was skipped, or what
// the kernel is known to fail anyway, or what rules of the engine do not do, proves nothing and is
// not wrong.
func (j Judgement) Wrong() string {
	r, w := j.Result, j.Want
	switch {
	case r.Verdict == matrix.Skip && (w.Verdict != matrix.Skip || r.Reason == matrix.NotClaimed),
		r.Verdict == matrix.XFail:
		return ""
	case r.Verdict == matrix.Pass && w.Verdict != matrix.Pass:
		return "wrong PASS"
	case r.Verdict != matrix.Pass && w.Verdict == matrix.Pass:
		return "wrong " + string(r.Verdict)
	case r.Verdict != w.Verdict:
		return "wrong verdict"
	case r.Reason != w.Reason:
		return "wrong reason"
	case w.Cause != anyCause && w.Cause != cause(r):
		return "wrong cause"
	}
	return ""
}

// cause is the code of the result's explanation, "" without one.
func cause(r matrix.Result) string {
	if r.Explanation == nil {
		return ""
	}
	return r.Explanation.Cause
}

// String says what a target must say.
func (w Want) String() string {
	if w.Reason == "" {
		return string(w.Verdict)
	}
	return string(w.Verdict) + " (" + w.Reason + "; " + w.Cause + ")"
}
