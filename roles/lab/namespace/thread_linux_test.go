package namespace

import (
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A thread of its own is not the main thread, is not shared and ends with its
// function. The goroutines that keep the other threads busy make it likely
// that the main thread is the one that is free.
func TestOwnThread(t *testing.T) {
	for range 100 {
		tids := make(chan int)
		stop := make(chan struct{})
		for range 4 {
			go func() { time.Sleep(time.Microsecond) }()
			OwnThread(func() {
				tids <- unix.Gettid()
				runtime.Gosched()
				<-stop
			})
		}
		seen := map[int]bool{unix.Getpid(): true}
		for range 4 {
			tid := <-tids
			if seen[tid] {
				t.Fatalf("thread %d is the main thread or not its own", tid)
			}
			seen[tid] = true
		}
		close(stop)
		delete(seen, unix.Getpid())
		end := time.Now().Add(2 * time.Second)
		for tid := range seen {
			for {
				if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(tid)); err != nil {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("thread %d did not end", tid)
				}
				runtime.Gosched()
			}
		}
	}
}
