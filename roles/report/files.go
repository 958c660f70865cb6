package report

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pfdivert/matrix"
	"pfdivert/roles/terminal"
)

// Files are the files for the reports of a run. OpenFiles opens them before the run, to find out
// whether they can be written. A file keeps its content until Write. Defer Discard, which removes
// the files that OpenFiles created and that were not written.
type Files struct {
	Standard bool // one goes to standard output
	files    []*file
}

// file is where one report goes.
type file struct {
	format int // index of Formats
	name   string
	to     io.Writer
	file   *os.File // nil for standard output, and when it is closed
	made   bool     // it was not there before
}

// OpenFiles opens a file for each report that is wanted. names has an element for each of Formats:
// a file name, "" for no report, or "-" for standard, which at most one may use.
func OpenFiles(names []string, standard io.Writer) (*Files, error) {
	r := &Files{}
	for i, name := range names {
		if name == "" {
			continue
		}
		if err := r.open(i, name, standard); err != nil {
			r.Discard()
			return nil, terminal.WithHint(fmt.Errorf("results: %w", err), "choose another file with -"+Formats[i].Flag)
		}
	}
	return r, nil
}

func (r *Files) open(format int, name string, standard io.Writer) error {
	f := &file{format: format, name: name, to: standard}
	if name == "-" {
		if r.Standard {
			return errors.New("standard output can have one report")
		}
		r.Standard = true
		r.files = append(r.files, f)
		return nil
	}
	var err error
	f.file, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	f.made = err == nil
	if errors.Is(err, os.ErrExist) {
		f.file, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666)
	}
	if err != nil {
		return err
	}
	f.to = f.file
	r.files = append(r.files, f)
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	for _, other := range r.files[:len(r.files)-1] {
		if other.file == nil || !info.Mode().IsRegular() {
			continue
		}
		if o, err := other.file.Stat(); err == nil && os.SameFile(info, o) {
			return fmt.Errorf("%s is the file of -%s too", name, Formats[other.format].Flag)
		}
	}
	return nil
}

// Has reports whether a report of the format is wanted.
func (r *Files) Has(flag string) bool {
	return slices.ContainsFunc(r.files, func(f *file) bool { return Formats[f.format].Flag == flag })
}

// Write writes all reports. A report that cannot be written does not prevent the others.
func (r *Files) Write(found Report) error {
	var errs []error
	for _, f := range r.files {
		if err := f.write(found); err != nil {
			errs = append(errs, fmt.Errorf("results, -%s %s: %w", Formats[f.format].Flag, f.name, err))
		}
	}
	return errors.Join(errs...)
}

func (f *file) write(found Report) error {
	if f.file == nil {
		return found.Write(f.to, Formats[f.format].Flag)
	}
	file := f.file
	f.file = nil
	info, err := file.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = file.Truncate(0)
	}
	if err == nil {
		err = found.Write(file, Formats[f.format].Flag)
	}
	return errors.Join(err, file.Close())
}

// Discard closes the files that were not written, and removes those of them that OpenFiles created.
func (r *Files) Discard() {
	for _, f := range r.files {
		if f.file == nil {
			continue
		}
		f.file.Close()
		if f.made {
			os.Remove(f.name)
		}
	}
}

// WriteFolders writes the transcripts and the evidence into dir: TARGET/HOST-ENDPOINT; with several
// hosts under test the target's name begins with a folder for each.
func WriteFolders(dir string, results []matrix.Result) error {
	var errs []error
	for _, r := range results {
		folder := filepath.Join(dir, r.Name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("transcripts: %w", err)
		}
		for _, t := range r.Transcript {
			// The names are this program's own, but they came from another host.
			name := strings.Map(fileLetter, t.Host+"-"+t.Name)
			if !strings.Contains(name, ".") {
				name += ".log"
			}
			errs = append(errs, os.WriteFile(filepath.Join(folder, name), []byte(t.Text), 0o644))
		}
		errs = append(errs, os.WriteFile(filepath.Join(folder, "verdict"), []byte(r.String()+"\n"), 0o644))
		if r.Evidence != nil {
			errs = append(errs, writeFile(filepath.Join(folder, "evidence.txt"), r, WriteEvidence))
			for _, host := range []string{"local", "remote"} {
				errs = append(errs, writeFile(filepath.Join(folder, host+".pcapng"), r,
					func(w io.Writer, r matrix.Result) error { return WritePcapng(w, r, host) }))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("transcripts: %w", err)
	}
	return nil
}

// writeFile writes a result's file.
func writeFile(name string, r matrix.Result, write func(io.Writer, matrix.Result) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f, r), f.Close())
}

func fileLetter(r rune) rune {
	if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' {
		return r
	}
	return '_'
}
