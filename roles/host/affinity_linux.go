package host

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// chooseCPUs picks a CPU for each host out of those that this process may
// use. Runs at the same time get different ones, by their process ids. ok is
// false where there is one CPU only, or none can be learnt.
func chooseCPUs() (local, remote int, ok bool) {
	set := unix.NewCPUSet(maxCPUs)
	if err := unix.SchedGetaffinityDynamic(0, set); err != nil {
		return 0, 0, false
	}
	var cpus []int
	for i := range maxCPUs {
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
