// Package kernel makes a host of a kernel's image: it boots it in QEMU, with this program as init.
package kernel

// Error says what is wrong with a kernel, its modules or QEMU, and what to do about it.
type Error struct {
	Text string
	Cure string
	Err  error
	// Splat is the kernel's own report, when it has given one.
	Splat string
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Text + ": " + e.Err.Error()
	}
	return e.Text
}

func (e *Error) Unwrap() error { return e.Err }

// Hint is what to do, for a person.
func (e *Error) Hint() string { return e.Cure }
