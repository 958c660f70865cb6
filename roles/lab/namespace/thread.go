package namespace

import "runtime"

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
