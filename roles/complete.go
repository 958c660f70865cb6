package roles

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/matrix/faults"
)

// What a shell completes by itself.
const (
	files   = "FILES"
	folders = "FOLDERS"
)

var completeRole = Role{
	Name: "complete", Usage: "-- WORD...", Hidden: true,
	Summary: "print what the last WORD of a command line can be",
	Help: `The shells' completions (contrib/completions) ask it. The words are those behind
the program's name; the last may be empty. Each line is a word, a tab and its meaning;
or FILES or FOLDERS alone, which a shell knows itself.

Exit status: 0, or 2 without a WORD.`,
}

func init() { completeRole.run = runComplete }

func runComplete(ctx context.Context, c *call) (int, error) {
	f := c.flags()
	if err := c.parse(f); err != nil || f.NArg() == 0 {
		return exitError, err
	}
	before, last := f.Args()[:f.NArg()-1], strings.TrimLeft(f.Arg(f.NArg()-1), `'"`)
	for _, line := range completions(ctx, before, last) {
		if line == files || line == folders || strings.HasPrefix(line, last) {
			fmt.Fprintln(c.Out, line)
		}
	}
	return exitOK, nil
}

// completions returns what can stand for last, a word of which the beginning may be there.
func completions(ctx context.Context, before []string, last string) []string {
	isFlag := strings.HasPrefix(last, "-")
	if len(before) == 0 && !isFlag {
		return roleLines()
	}
	role, rest, err := pick(append([]string{"pfdivert"}, before...))
	if err != nil || role.Hidden {
		return nil
	}
	// A role that is asked for its help has made its flags, and does nothing else.
	quiet := IO{strings.NewReader(""), io.Discard, io.Discard, func(string) string { return "" }}
	asked := &call{IO: quiet, role: role, args: append([]string{"-h"}, rest...)}
	if _, err := role.run(ctx, asked); err != nil && !errors.Is(err, flag.ErrHelp) {
		return nil
	}
	for len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' && rest[0] != "--" {
		name, _, given := strings.Cut(strings.TrimLeft(rest[0], "-"), "=")
		g := asked.set.Lookup(name)
		rest = rest[1:]
		if g == nil || given || takesNone(g) {
			continue
		}
		if len(rest) == 0 {
			return valueLines(g)
		}
		rest = rest[1:]
	}
	if isFlag && (len(rest) == 0 || role == &pfSetupRole) {
		return flagLines(asked.set)
	}
	return argumentLines(role)
}

// takesNone reports whether a flag is complete without a value.
func takesNone(g *flag.Flag) bool {
	b, ok := g.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

func roleLines() (lines []string) {
	for _, r := range all() {
		if !r.Hidden {
			lines = append(lines, r.Name+"\t"+r.Summary)
		}
	}
	return lines
}

func flagLines(set *flag.FlagSet) (lines []string) {
	set.VisitAll(func(g *flag.Flag) {
		_, usage := flag.UnquoteUsage(g)
		lines = append(lines, "-"+g.Name+"\t"+strings.ReplaceAll(usage, "\n", " "))
	})
	return lines
}

func valueLines(g *flag.Flag) (lines []string) {
	switch takes, _ := flag.UnquoteUsage(g); takes {
	case "FILE", "IMAGE":
		return []string{files}
	case "DIR":
		return []string{folders}
	case "NAME":
		for _, f := range faults.All() {
			lines = append(lines, f.Name+"\t"+f.About)
		}
	}
	return lines
}

// argumentLines returns what a role takes behind its flags.
func argumentLines(r *Role) (lines []string) {
	switch r {
	case &orchestratorRole, &listRole, &checkSetupRole, &atfRole:
		for _, t := range append(matrix.Targets(), matrix.Claims()...) {
			lines = append(lines, t.Name+"\t"+t.Proves())
		}
	case &compareRole, &mergeRole, &kernelsRole, &doctorRole:
		return []string{files}
	case &installRole:
		return []string{folders}
	case &helpRole:
		return roleLines()
	case &pfSetupRole:
		return slices.Sorted(maps.Keys(verbs))
	}
	return lines
}
