// Package namespace starts programs in network namespaces of their own, and
// says what to do where the system refuses that.
package namespace

import (
	"fmt"
	"runtime"
)

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

// OwnThread runs f in a goroutine with an operating system thread of its own,
// which ends with f. So f may give the thread another namespace or affinity;
// the runtime neither runs others on it nor clones its threads from it.
//
// It is never the main thread, which does not end and whose namespace
// /proc/self shows.
func OwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if !onMainThread() {
			f()
			return // still locked
		}
		// While this goroutine keeps the main thread, another gets a different
		// one.
		locked := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(locked)
			f()
		}()
		<-locked
		runtime.UnlockOSThread()
	}()
}
