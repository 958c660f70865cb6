package report

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pfdivert/matrix"
	"pfdivert/pfconf"
)

// Fleet is what many files of JSON say, host by host. Call Add for each file, and then the others.
type Fleet struct {
	version string
	hosts   []*Host
	named   map[string]*Host
	notes   []string // decisions that a reader should know
	reader  *reader
	names   map[string]string // of hosts, by the place of their files
	size    int64             // of all files, in bytes
	since   *since            // nil for nothing
}

// Host is what a fleet has of a host, as in JSON.
type Host struct {
	Machine
	// Of the host's run: this program's version there, when it started, how long it took, and
	// whether it was ended early or, if so, why it ran nothing.
	Version     string    `json:"version,omitempty"`
	Started     time.Time `json:"started,omitzero"`
	Seconds     float64   `json:"seconds,omitempty"`
	Interrupted bool      `json:"interrupted,omitempty"`
	Skipped     string    `json:"skipped,omitempty"`
	Files       []string  `json:"files,omitempty"`
	Doctor      *Doctor   `json:"doctor,omitempty"` // nil if there is no file of doctor's
	Unread      []Unread  `json:"unread,omitempty"`

	summaries []Summary
	merged    bool // it was read from a merged report
}

// Unread is a file that could not be read.
type Unread struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// name is empty for none.
func (h *Host) name() string {
	if h == nil {
		return ""
	}
	return h.Name
}

// maxFleet bounds the files of a fleet: those of 10,000 hosts have some 300 MB.
const maxFleet = 512 << 20

// NewFleet returns a fleet without hosts; version is this program's. The files are those that will
// be added: what distinguishes their paths names the hosts.
func NewFleet(version string, files []string) *Fleet {
	f := &Fleet{version: version, named: map[string]*Host{}, reader: newReader(), names: map[string]string{}}
	f.nameHosts(files)
	return f
}

// nameHosts names the hosts of files that name none. Files of one place are of one host:
// 'web1.json', 'web1-doctor.json' and 'web1/run.json'. Those of several places are of several
// hosts: their folders or their own names name them, or, where that is no name of its own, both.
func (f *Fleet) nameHosts(files []string) {
	folders, stems := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		folders[filepath.Dir(file)] = true
		stems[stem(file)] = true
	}
	var places []string // in the order of the files
	count := map[string]int{}
	for _, file := range files {
		at := placeOf(file)
		if _, ok := f.names[at]; ok {
			continue
		}
		name := nameOf(file, len(stems) < len(folders))
		f.names[at] = name
		places = append(places, at)
		count[name]++
	}
	taken := map[string]bool{}
	for _, at := range places {
		name := f.names[at]
		if folder := folderOf(at); count[name] > 1 && folder != "" {
			name = legalName(folder + "-" + filepath.Base(at))
		}
		f.names[at] = name
		for n := 2; taken[f.names[at]]; n++ {
			f.names[at] = withFilter(name, fmt.Sprint(n))
		}
		taken[f.names[at]] = true
	}
}

// placeOf is a file's path without what only says that it has results: one for each host.
func placeOf(file string) string {
	if file == "-" {
		return file
	}
	return filepath.Join(filepath.Dir(file), stem(file))
}

// folderOf is the name of the folder that a path is in, or empty.
func folderOf(path string) string {
	folder := filepath.Base(filepath.Dir(path))
	if folder == "." || folder == ".." || folder == "/" {
		return ""
	}
	return folder
}

// stem is a file's name without what only says that it has results.
func stem(file string) string {
	name := strings.TrimSuffix(filepath.Base(file), ".json")
	for _, word := range []string{"run", "doctor", "results", "pfdivert"} {
		if name == word {
			return ""
		}
		if host, ok := strings.CutSuffix(name, word); ok && host != strings.TrimRight(host, "-.") {
			name = host[:len(host)-1]
		}
	}
	return name
}

// nameOf is the name of a file, or of its folder if that is all that distinguishes files.
func nameOf(file string, folders bool) string {
	if file == "-" {
		return "stdin"
	}
	name := stem(file)
	if name == "" || folders {
		name = cmp.Or(folderOf(file), name, filepath.Base(file))
	}
	return legalName(name)
}

// legalName makes a name one that reports can have: no host's has a slash, as that of the root.
func legalName(name string) string {
	return withFilter(strings.ReplaceAll(strings.ToValidUTF8(name, "\ufffd"), "/", "_"), "")
}

// withFilter is a host's name with what distinguishes it from others, cut to the length of a name.
func withFilter(name, filter string) string {
	if filter != "" {
		filter = "-" + filter
	}
	return strings.ToValidUTF8(name[:min(len(name), maxName-len(filter))], "") + filter
}

// Add adds a file. One that is nil could not be opened, for the reason err. The error of a file
// that can't be read is also part of the reports.
func (f *Fleet) Add(file string, from io.Reader, err error) error {
	name, ok := f.names[placeOf(file)]
	if !ok {
		name = nameOf(file, false)
	}
	file = strings.ToValidUTF8(file, "\ufffd")
	var c *content
	if err == nil {
		counted := &counter{Reader: from}
		c, err = f.reader.read(counted)
		if f.size += counted.n; err == nil && f.size > maxFleet {
			err = fmt.Errorf("all files together have more than %d MB", maxFleet>>20)
		}
	}
	if err != nil {
		if path := (*fs.PathError)(nil); errors.As(err, &path) {
			err = path.Err
		}
		f.join(name, &Host{Machine: Machine{Name: name}, Unread: []Unread{{file, err.Error()}}})
		return fmt.Errorf("%s: %w", file, err)
	}
	if c.run == nil {
		f.join(name, &Host{Machine: Machine{Name: name}, Files: []string{file}, Doctor: c.doctor})
		return nil
	}
	if c.hosts == nil {
		c.hosts = []*Host{{Machine: Machine{Name: name, Kernel: c.run.Kernel, System: c.run.System,
			Filter: c.run.filter()}}}
		for i := range c.summaries {
			c.summaries[i].Host = name
		}
	}
	of := map[string]*Host{}
	filters := true
	for _, h := range c.hosts {
		of[h.Name] = h
		filters = filters && h.Filter == h.Name
		if h.merged = h.Files != nil || h.Unread != nil; h.merged {
			continue
		}
		h.Version, h.Started, h.Seconds = c.run.Version, c.run.Started, c.run.Seconds
		h.Interrupted, h.Skipped, h.Files = c.run.Interrupted, c.run.Skipped, []string{file}
	}
	for _, o := range c.summaries {
		o.tellRuns()
		of[o.Host].summaries = append(of[o.Host].summaries, o)
	}
	for _, h := range c.hosts {
		if filters { // one host, a name for each filter
			h.Name = withFilter(name, h.Filter)
		}
		f.join(h.Name, h)
	}
	return nil
}

// counter counts what is read.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += int64(n)
	return n, err
}

// join adds what a file has of a host to what others have of it.
//
// If the host was run twice, the later run counts: for the targets that it has if both are of the
// same kernel, else for all. With another filter it is a host of its own. What doctor found is kept
// of all files, for its files do not say when they were written.
func (f *Fleet) join(name string, h *Host) {
	old := f.named[name]
	for n := 1; old != nil && old.ran() && h.ran() && old.Filter != h.Filter; n++ {
		suffix := cmp.Or(h.Filter, "default")
		if n > 1 {
			suffix += fmt.Sprintf("-%d", n)
		}
		h.Name = withFilter(name, suffix)
		old = f.named[h.Name]
	}
	for i := range h.summaries {
		h.summaries[i].Host = h.Name
	}
	if old == nil {
		f.named[h.Name] = h
		f.hosts = append(f.hosts, h)
		return
	}
	earlier, later := old, h
	if later.ran() && later.Started.Before(earlier.Started) || !later.ran() {
		earlier, later = later, earlier
	}
	merged := *later
	merged.Name = old.Name
	merged.Files = slices.Compact(append(slices.Clone(old.Files), h.Files...))
	merged.Unread = slices.Clone(old.unreadBeside(h))
	for _, u := range h.unreadBeside(old) {
		if !slices.Contains(merged.Unread, u) {
			merged.Unread = append(merged.Unread, u)
		}
	}
	switch {
	case old.Doctor == nil:
		merged.Doctor = h.Doctor
	case h.Doctor == nil:
		merged.Doctor = old.Doctor
	default:
		merged.Doctor = old.Doctor.with(h.Doctor)
	}
	if earlier.ran() && later.ran() && !earlier.Started.Equal(later.Started) {
		merged.summaries = f.joinRuns(old.Name, earlier, later)
		// The targets of both are not all that the earlier run was to run.
		merged.Interrupted = later.Interrupted || earlier.Interrupted && len(merged.summaries) > len(later.summaries)
	}
	*old = merged
	for i := range old.summaries {
		old.summaries[i].Host = old.Name
	}
}

// joinRuns returns the targets of two runs of a host, and notes which are whose.
func (f *Fleet) joinRuns(name string, earlier, later *Host) []Summary {
	all := later.summaries
	note := fmt.Sprintf("%s is in %s and %s: the later run, of %s, counts", name, strings.Join(earlier.Files, ", "),
		strings.Join(later.Files, ", "), later.Started.Format(time.RFC3339))
	if earlier.Kernel != later.Kernel || earlier.System != later.System {
		f.notes = append(f.notes, note+"; the other is of "+earlier.kernel())
		return all
	}
	has := map[string]bool{}
	for _, o := range all {
		has[o.Name] = true
	}
	for _, o := range earlier.summaries {
		if !has[o.Name] {
			all = append(all, o)
		}
	}
	if more := len(all) - len(later.summaries); more > 0 {
		note += fmt.Sprintf(", and the other for %s that it lacks", pfconf.Count(more, "target"))
	}
	f.notes = append(f.notes, note)
	return all
}

// ran reports whether there is a run of the host.
func (h *Host) ran() bool { return h.Version != "" || len(h.summaries) > 0 }

// unreadBeside are the files that could not be read. What a merged report says of that is out of
// date if another file has a run of the host.
func (h *Host) unreadBeside(other *Host) []Unread {
	if h.merged && !h.ran() && other.ran() {
		return nil
	}
	return h.Unread
}

// unable says, for each file of the host that it is true of, why the host is not tested as it
// should be.
func (h *Host) unable() (all []Unread) {
	all = slices.Clone(h.Unread)
	file := strings.Join(h.Files, ", ")
	switch {
	case h.Interrupted:
		all = append(all, Unread{file, "the run was interrupted after " + pfconf.Count(len(h.summaries), "target")})
	case h.Skipped != "":
		all = append(all, Unread{file, "nothing was run: " + h.Skipped})
	case h.ran() && len(h.summaries) == 0:
		all = append(all, Unread{file, "nothing was run"})
	}
	return all
}

// Problems returns an error for each file of a host that was not tested as it should be and whose
// file could be read: Add returned those of others.
func (f *Fleet) Problems() (errs []error) {
	for _, h := range f.hosts {
		for _, u := range h.unable() {
			if !slices.Contains(h.Unread, u) || h.merged {
				errs = append(errs, fmt.Errorf("%s: %s: %s", u.File, h.Name, u.Error))
			}
		}
		var first *Summary
		n := 0
		for i := range h.summaries {
			if o := &h.summaries[i]; o.Verdict == matrix.Error {
				if n++; first == nil {
					first = o
				}
			}
		}
		if n > 0 {
			errs = append(errs, fmt.Errorf("%s: %s: %s could not be run: %s", strings.Join(h.Files, ", "), h.Name,
				pfconf.Count(n, "target"), printable(first.says())))
		}
	}
	return errs
}

// ExitStatus returns 2 when a host was not tested as it should be, 1 when one fails, has a problem
// that is bad or regressed, else 0.
func (f *Fleet) ExitStatus() int {
	status := 0
	if f.since != nil && f.since.Regressions > 0 {
		status = 1
	}
	for _, h := range f.hosts {
		if h.Doctor.bad() > 0 {
			status = max(status, 1)
		}
		if len(h.unable()) > 0 {
			return 2
		}
		for i := range h.summaries {
			status = max(status, matrix.ExitStatus(h.summaries[i].Verdict))
		}
	}
	return status
}

// run is the fleet as a run of several hosts.
func (f *Fleet) run() Run {
	r := Run{Version: f.version, Tested: []Machine{}, without: map[string]string{}}
	for _, h := range f.hosts {
		r.Tested = append(r.Tested, h.Machine)
		if h.ran() && (r.Started.IsZero() || h.Started.Before(r.Started)) {
			r.Started = h.Started
		}
		r.Seconds = max(r.Seconds, h.Seconds)
		r.Interrupted = r.Interrupted || h.Interrupted
		unable := len(h.unable()) > 0
		if unable {
			r.lacking++
		}
		switch {
		case len(h.summaries) > 0:
		case unable || h.Doctor == nil:
			r.without[h.Name] = "no results"
		case len(h.Doctor.Problems) == 0:
			r.without[h.Name] = "doctor found no problem"
		default:
			r.without[h.Name] = "doctor found " + pfconf.Count(len(h.Doctor.Problems), "problem")
		}
	}
	return r
}

// count is how many targets of all hosts have each verdict.
func (f *Fleet) count() map[matrix.Verdict]int {
	count := map[matrix.Verdict]int{}
	for _, h := range f.hosts {
		for i := range h.summaries {
			count[h.summaries[i].Verdict]++
		}
	}
	return count
}

// summariesOf are the summaries of some hosts.
func summariesOf(hosts []*Host) []Summary {
	n := 0
	for _, h := range hosts {
		n += len(h.summaries)
	}
	all := make([]Summary, 0, n)
	for _, h := range hosts {
		all = append(all, h.summaries...)
	}
	return all
}
