// Package splat finds the reports in a Linux kernel's log by which it says that something is wrong
// with the kernel itself: panics, oopses, BUG, WARNING, KASAN, lockdep, UBSAN.
package splat

import (
	"regexp"
	"strings"
	"sync"
)

// maxLines bounds what is kept of a report.
const maxLines = 80

// begins matches the first line of a report, without its time. Who is late is not among them: a
// stalled CPU or task (soft lockup, RCU stall, hung task) may be an emulator's or a busy host's.
var begins = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:` + strings.Join([]string{
		`Kernel panic - not syncing`,
		`kernel BUG at `,
		`BUG: `, // also KASAN, KFENCE, KCSAN, "sleeping function called", "scheduling while atomic"
		`WARNING: CPU: \d`,
		`WARNING: [-\w./]+:\d+ at `, // since Linux 6.18
		`WARNING: (?:possible|suspicious|inconsistent|bad|held|lock|locking|nested|SOFTIRQ|HARDIRQ|stack recursion|kernel stack)\b`,
		`INFO: (?:trying to register non-static key|suspicious RCU|possible recursive locking)`,
		`UBSAN: `,
		`Oops(?::| - )`,
		`Internal error: `,
		`Unable to handle kernel `,
		`Unhandled (?:fault|exception)\b`,
		`CPU \d+ Unable to handle kernel `, // MIPS
		`Unable to handle kernel pointer dereference`,
		`general protection fault\b`,
		`divide error: `,
		`stack segment: `,
		`invalid opcode: `,
		`double fault: `,
		`illegal operation: `, // s390
	}, "|") + `)`)
})

// stamp is what printk puts before a line: a level, a time, a thread or CPU.
var stamp = regexp.MustCompile(`^(?:<\d+>)?(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?)?`)

// last matches the last line of a report.
var last = regexp.MustCompile(`^---\[ end `)

// Finder finds reports in a log that is given to it line by line.
type Finder struct {
	lines []string // of the report that is being read
	found []string
}

// Line takes a line of the log.
func (f *Finder) Line(line string) {
	text := line[len(stamp.FindString(line)):]
	switch {
	case len(f.lines) == 0 && !begins().MatchString(text):
		return
	case len(f.lines) == maxLines:
		f.end()
		f.Line(line)
		return
	}
	f.lines = append(f.lines, text)
	// A panic's is the last word; the end of another's oops comes behind "Kernel panic".
	if last.MatchString(text) {
		f.end()
	}
}

func (f *Finder) end() {
	if len(f.lines) > 0 {
		f.found = append(f.found, strings.Join(f.lines, "\n")+"\n")
		f.lines = nil
	}
}

// Take returns the reports that were found since the last call, with what there is of one
// whose end has not come.
func (f *Finder) Take() []string {
	f.end()
	found := f.found
	f.found = nil
	return found
}

// Title is a report's first line.
func Title(report string) string {
	title, _, _ := strings.Cut(report, "\n")
	return title
}
