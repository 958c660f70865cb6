package netfilter

import (
	"errors"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// Read reads the rules of this host's network namespace. Rules that could not be read are an error, beside those
// that could.
func Read() (*Ruleset, error) {
	r := &Ruleset{}
	err := r.nfTables()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) {
		err = nil // a kernel without nf_tables has no rules of it
		r.Chains = nil
	}
	old := r.legacy()
	if old != nil {
		if errors.Is(old, fs.ErrPermission) || errors.Is(old, syscall.EPERM) {
			old = errors.Join(err, old)
			return r, old
		}
		return r, errors.Join(err, old)
	}
	return r, err
}
