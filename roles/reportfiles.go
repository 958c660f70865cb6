package roles

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"pfdivert/roles/report"
)

// reportFiles are the files that a run's reports go to. They are opened before the
// run, so that it is known whether they can be written, and written when there is
// something to report: until then a file stays as it was, and one that was not there
// is gone again when the run could not start.
type reportFiles struct {
	files    []*reportFile
	standard bool // one goes to standard output
}

// reportFile is where one report goes.
type reportFile struct {
	format int // index of formats
	name   string
	to     io.Writer
	file   *os.File // nil for standard output, and when it is closed
	made   bool     // it was not there before
}

// openReports opens the files of the reports that are wanted: a name for each of
// formats, "" for none, "-" for standard output.
func openReports(names []string, standard io.Writer) (*reportFiles, error) {
	r := &reportFiles{}
	for i, name := range names {
		if name == "" {
			continue
		}
		if err := r.open(i, name, standard); err != nil {
			r.discard()
			return nil, hinted{fmt.Errorf("results: %w", err), "choose another file with -" + formats[i].flag}
		}
	}
	return r, nil
}

func (r *reportFiles) open(format int, name string, standard io.Writer) error {
	f := &reportFile{format: format, name: name, to: standard}
	if name == "-" {
		if r.standard {
			return errors.New("standard output can have one report")
		}
		r.standard = true
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
			return fmt.Errorf("%s is the file of -%s too", name, formats[other.format].flag)
		}
	}
	return nil
}

// has reports whether a report of the format is wanted.
func (r *reportFiles) has(flag string) bool {
	return slices.ContainsFunc(r.files, func(f *reportFile) bool { return formats[f.format].flag == flag })
}

// write writes all reports; one that can't be written does not keep the others from it.
func (r *reportFiles) write(found *findings, run report.Run) error {
	var errs []error
	for _, f := range r.files {
		if err := f.write(found, run); err != nil {
			errs = append(errs, fmt.Errorf("results, -%s %s: %w", formats[f.format].flag, f.name, err))
		}
	}
	return errors.Join(errs...)
}

func (f *reportFile) write(found *findings, run report.Run) error {
	if f.file == nil {
		return formats[f.format].write(found, f.to, run)
	}
	file := f.file
	f.file = nil
	info, err := file.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = file.Truncate(0)
	}
	if err == nil {
		err = formats[f.format].write(found, file, run)
	}
	return errors.Join(err, file.Close())
}

// discard closes what was not written, and removes what was made for nothing.
func (r *reportFiles) discard() {
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
