package host

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// chooseCPUs picks a CPU for each host out of those that this process may
// use. Runs at the same time get different ones, by their process ids. ok is
// false where there is one CPU only and nothing to choose.
func chooseCPUs() (local, remote int, ok bool) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, 0, false // more CPUs than the set holds (EINVAL): too many to share one by chance
	}
	var cpus []int
	for i := 0; len(cpus) < set.Count(); i++ {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	if len(cpus) < 2 {
		return 0, 0, false
	}
	first := 2 * os.Getpid() % len(cpus)
	return cpus[first], cpus[(first+1)%len(cpus)], true
}

// pinThread lets the calling thread, and the processes that it starts, run on
// one CPU only.
func pinThread(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	return nil
}
