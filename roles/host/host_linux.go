package host

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// chooseCPUs picks a CPU for each host out of those that this process may
// use. Runs at the same time get different ones, by their process ids. ok is
// false where there is one CPU only, or none can be learnt.
func chooseCPUs() (local, remote int, ok bool) {
	cpus := ownCPUs()
	if len(cpus) < 2 {
		return 0, 0, false
	}
	first := 2 * os.Getpid() % len(cpus)
	return cpus[first], cpus[(first+1)%len(cpus)], true
}

// ownCPUs are the CPUs that this process could use when it first asked: keepOff changes that. None
// where they can't be learnt.
var ownCPUs = sync.OnceValue(func() (cpus []int) {
	set := unix.NewCPUSet(maxCPUs)
	if err := unix.SchedGetaffinityDynamic(0, set); err != nil {
		return nil
	}
	for i := range maxCPUs {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus
})

// keepOff has this process leave a CPU to REMOTE's agent, which has most to do, until back is
// called. The scheduler puts it there for as long as they talk to each other: a long run had
// 1,660 cells a second with both on one CPU, and 2,200 without. Where it can't be
// done, nothing but time is lost.
func keepOff(cpu int) (back func()) {
	others := unix.NewCPUSet(maxCPUs)
	all := unix.NewCPUSet(maxCPUs)
	for _, c := range ownCPUs() {
		all.Set(c)
		if c != cpu {
			others.Set(c)
		}
	}
	setThreads(others)
	return func() { setThreads(all) }
}

// setThreads sets the CPUs of all threads of this process. Later ones have those of the thread that
// starts them, so it looks again until there is none that is new.
func setThreads(set unix.CPUSetDynamic) {
	for known := map[int]bool{}; ; {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		before := len(known)
		for _, t := range threads {
			if tid, err := strconv.Atoi(t.Name()); err == nil && !known[tid] {
				known[tid] = true
				_ = unix.SchedSetaffinityDynamic(tid, set)
			}
		}
		if len(known) == before {
			return
		}
	}
}

// maxCPUs is NR_CPUS of the kernels with the most.
const maxCPUs = 8192

// pin lets the calling thread, and the processes that it starts, run on one
// CPU only, if that is wanted.
func (s labSettings) pin(cpu int) error {
	if !s.Pin {
		return nil
	}
	set := unix.NewCPUSet(maxCPUs)
	set.Set(cpu)
	if err := unix.SchedSetaffinityDynamic(0, set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	return nil
}

// dieWithParent has a child get a signal when the thread that started it ends, even
// by SIGKILL. It is a belt: an agent ends by itself when its input does.
func dieWithParent(signal syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: signal}
}
