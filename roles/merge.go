package roles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"pfdivert/roles/report"
	"pfdivert/roles/terminal"
)

var mergeRole = Role{
	Name: "merge", Usage: "[FLAGS] FILE.json...", Summary: "make one report of the results of many hosts",
	NoUndo: true,
	Help: `The files are what 'pfdivert run -json FILE' wrote, also with -count or -hosts, what
'pfdivert doctor -json' printed, and what merge wrote; '-' is standard input. Up to 12
hosts have a column each. More are grouped by kernel, filter and verdicts: those that
differ from the rest of their kernel are named first.

A host is named by its file: web1.json, web1-doctor.json and web1/run.json are of web1.
Files of one name in several folders are of several hosts, which the folders name:
a/x.json and b/x.json are of a and b, or with b/y.json of a-x, b-x and y. Where a file has
several hosts, they have their names there. If there are two runs of a host, the later
counts: for the targets that it has if the kernel is the same, else for all; a note says
so. With another filter it is a host of its own.

Exit status: 0 when every target is PASS, XFAIL or SKIP; 1 when a host has one that is
FAIL or XPASS, or a problem of doctor's that is bad, or with -against something
regressed; 2 when a target is ERROR,
a run was interrupted or ran nothing, or a file is missing or broken: it is named,
and the other files are still merged.`,
	run: runMerge,
}

// mergeMemory is what merge uses at most if it can, in bytes: collecting garbage more often costs
// it less than memory costs others.
const mergeMemory = 160 << 20

func runMerge(_ context.Context, c *call) (int, error) {
	f := c.flags()
	names := make([]string, len(report.Formats))
	for i, format := range report.Formats {
		f.StringVar(&names[i], format.Flag, "", format.Usage)
	}
	against := f.String("against", "", "tell what changed since the report in `FILE`, of merge or run")
	verbose := f.Bool("v", false, "list the claims that no manual makes")
	if err := c.parse(f); err != nil {
		return exitError, err
	}
	if f.NArg() == 0 {
		return exitError, terminal.WithHint(errors.New("merge needs files with results"),
			"pfdivert run -json web1.json on each host, and then pfdivert merge web1.json web2.json")
	}
	for _, arg := range f.Args() {
		if arg != "-" && strings.HasPrefix(arg, "-") && !slices.Contains(c.args, "--") {
			return exitError, terminal.WithHint(fmt.Errorf("%s stands behind a file", arg),
				"flags come first: pfdivert merge "+arg+" … FILE.json; and before a file of that name: --")
		}
	}
	var last *report.Past
	if *against != "" {
		var err error
		if last, err = c.readRun(*against); err != nil {
			return exitError, terminal.WithHint(err, "give the file that 'pfdivert merge -json FILE' wrote the last time")
		}
	}
	files, err := report.OpenFiles(names, c.Out)
	if err != nil {
		return exitError, err
	}
	defer files.Discard()
	// What was read is kept until the end: memory is dearer here than in the roles that meet
	// packets.
	debug.SetGCPercent(100)
	debug.SetMemoryLimit(mergeMemory)
	fleet := report.NewFleet(c.version, f.Args())
	var errs []error
	for _, name := range f.Args() {
		if err := c.addTo(fleet, name); err != nil {
			errs = append(errs, err)
		}
	}
	if last != nil {
		fleet.Against(*against, last)
		last = nil // it can be large
	}
	errs = append(errs, fleet.Problems()...)
	for i, err := range errs {
		if i == len(errs)-1 {
			hint := "fix what is said of these hosts, test them again as before, and then merge"
			if !slices.ContainsFunc(errs, func(e error) bool { return !errors.As(e, new(syscall.Errno)) }) {
				hint = "see which files can be read: ls -l"
			}
			err = terminal.WithHint(err, hint)
		}
		terminal.PrintError(c.Err, err)
	}
	text := c.Out
	if files.Standard {
		text = c.Err
	}
	style := report.StyleOf(text, c.Getenv)
	style.Claims = *verbose
	if err := errors.Join(files.Write(fleet), fleet.WriteText(text, style)); err != nil {
		return exitError, err
	}
	return fleet.ExitStatus(), nil
}

// addTo adds a file to a fleet.
func (c *call) addTo(fleet *report.Fleet, name string) error {
	var from io.Reader = c.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fleet.Add(name, nil, err)
		}
		defer f.Close()
		from = f
	}
	return fleet.Add(name, from, nil)
}
