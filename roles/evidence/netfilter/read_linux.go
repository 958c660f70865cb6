package netfilter

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Read reads the rules of this host's network namespace, and gives why some could not be read.
func Read() (*Ruleset, []error) {
	r := &Ruleset{}
	var errs []error
	// A kernel without nf_tables has no rules of it.
	if err := r.nfTables(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPROTONOSUPPORT) {
		errs = append(errs, err)
	}
	if err := r.legacy(); err != nil {
		errs = append(errs, err)
	}
	return r, errs
}
