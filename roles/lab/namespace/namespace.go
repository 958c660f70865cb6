// Package namespace starts programs in network namespaces of their own, and
// says what to do where the system refuses that.
package namespace

import "fmt"

// ForbiddenError says that this system gives this user no network namespace.
type ForbiddenError struct {
	Err   error  // what the system said
	Cause string // the setting that is to blame; "" when none was found
	Cure  string // what to do about it
}

func (e *ForbiddenError) Error() string {
	if e.Cause == "" {
		return fmt.Sprintf("this system gives no network namespace: %v", e.Err)
	}
	return fmt.Sprintf("this system gives no network namespace: %v (%s)", e.Err, e.Cause)
}

// Unwrap returns the system's error.
func (e *ForbiddenError) Unwrap() error { return e.Err }

// Hint is what to do, for a person.
func (e *ForbiddenError) Hint() string { return e.Cure }
