// Package matrix has the targets of the suite, what each expects of which
// kernel, and how a cell is run against two hosts and judged.
package matrix

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"pfdivert/pfconf"
)

// Target is one target of the suite: one cell of the matrix.
type Target struct {
	Name   string
	Family pfconf.Family
	Proto  pfconf.Proto
	// First is the mode of an args target and of a reuse target's first cell;
	// Second of a reuse target's second cell, empty for args targets.
	First, Second Mode
	// Claim is what the target tests that is none of the suite's, nil for those.
	Claim *Claim
}

// Kind is the target's name without its family: the row of the matrix.
func (t Target) Kind() string { return strings.TrimPrefix(t.Name, t.Family.String()+"-") }

// reuse reports whether the target runs two cells.
func (t Target) reuse() bool { return t.Second != Mode{} }

// argsModes are the args targets of each protocol, in the suite's order.
var argsModes = []struct {
	proto pfconf.Proto
	modes []Mode
}{
	{pfconf.TCP, []Mode{To, Reply}},
	{pfconf.UDP, []Mode{To, Reply, ReplyTo}},
	{pfconf.Raw, []Mode{To, Reply, ReplyTo}},
	{pfconf.ICMP, []Mode{To, ReplyTo, ReplyReuse}},
	{pfconf.UDP, []Mode{PacketIn, PacketOut}},
}

// reuseModes are the modes that the reuse targets of each protocol combine.
var reuseModes = []struct {
	proto pfconf.Proto
	modes []Mode
}{
	{pfconf.TCP, []Mode{To, Reply}},
	{pfconf.UDP, []Mode{To, Reply, ReplyTo}},
	{pfconf.Raw, []Mode{To, Reply, ReplyTo}},
}

// Targets lists the suite's targets in the order of its Makefile: family by
// family, the args targets first.
func Targets() []Target {
	var all []Target
	for _, f := range pfconf.Families {
		for _, a := range argsModes {
			for _, m := range a.modes {
				all = append(all, Target{fmt.Sprintf("%v-args-%v-%s", f, a.proto, m), f, a.proto, m, Mode{}, nil})
			}
		}
		for _, r := range reuseModes {
			for _, first := range r.modes {
				for _, second := range r.modes {
					all = append(all, Target{fmt.Sprintf("%v-reuse-%v-%s-%s", f, r.proto, first, second), f, r.proto,
						first, second, nil})
				}
			}
		}
	}
	return all
}

// Proves says in a sentence what the target proves.
func (t Target) Proves() string {
	if t.Claim != nil {
		return t.Claim.proves(t.Family)
	}
	s := fmt.Sprintf("%v %v: %s", t.Family, t.Proto, t.First.proves)
	if t.reuse() {
		s = fmt.Sprintf("%v %v: %s works after %s with the same addresses and the ports swapped; the first's state does not interfere",
			t.Family, t.Proto, t.Second, t.First)
	}
	return s
}

// Select returns the targets that match one of the patterns (path.Match's: '*', '?',
// '[…]'), in the order of Targets and Claims; the suite's without a pattern. A pattern chooses
// claims only when it matches no target of the suite; "*" chooses all of both. A pattern that
// matches nothing is an error that names what comes nearest.
func Select(patterns []string) ([]Target, error) {
	if len(patterns) == 0 {
		return Targets(), nil
	}
	suite := Targets()
	all := append(suite, Claims()...)
	wanted := make([]bool, len(all))
	for _, p := range patterns {
		found := false
		for i, t := range all {
			if i == len(suite) && found && p != "*" {
				break
			}
			ok, err := path.Match(p, t.Name)
			if err != nil {
				return nil, &PatternError{p, err}
			}
			if ok || p == "run-"+t.Name {
				wanted[i], found = true, true
			}
		}
		if !found {
			return nil, &NoTargetError{Pattern: p, Nearest: Nearest(p, names(all))}
		}
	}
	var some []Target
	for i, t := range all {
		if wanted[i] {
			some = append(some, t)
		}
	}
	return some, nil
}

func names(targets []Target) []string {
	s := make([]string, len(targets))
	for i, t := range targets {
		s[i] = t.Name
	}
	return s
}

// NoTargetError says that a pattern matches no target. Nearest is empty where none is near.
type NoTargetError struct{ Pattern, Nearest string }

func (e *NoTargetError) Error() string { return fmt.Sprintf("no target matches %q", e.Pattern) }

// Hint names the nearest target, if there is one.
func (e *NoTargetError) Hint() string {
	if e.Nearest == "" {
		return "'pfdivert list' shows all"
	}
	return fmt.Sprintf("the nearest is %s; 'pfdivert list' shows all", e.Nearest)
}

// PatternError says that a pattern is none.
type PatternError struct {
	Pattern string
	Err     error
}

func (e *PatternError) Error() string { return fmt.Sprintf("pattern %q: %v", e.Pattern, e.Err) }

// Unwrap returns path.Match's error.
func (e *PatternError) Unwrap() error { return e.Err }

// Hint says what patterns are made of.
func (e *PatternError) Hint() string {
	return "'*' stands for any letters, '?' for one, '[a-z]' for one of these; 'pfdivert list' shows the names"
}

// Nearest returns the one of the names that the fewest edits turn word into, or "" where that takes
// so many that it is another word.
func Nearest(word string, names []string) string {
	nearest := slices.MinFunc(names, func(a, b string) int { return edits(word, a) - edits(word, b) })
	if edits(word, nearest) > max(2, len(word)/4) {
		return ""
	}
	return nearest
}

// Suggest returns the beginning of a hint that names the nearest of the names, "" if none is near.
func Suggest(word string, names []string) string {
	if nearest := Nearest(word, names); nearest != "" {
		return "the nearest is " + nearest + "; "
	}
	return ""
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
