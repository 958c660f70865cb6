package host

import (
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// threadsOn counts this process's threads that may run on the CPU, and all.
func threadsOn(t *testing.T, cpu int) (on, all int) {
	t.Helper()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		set := unix.NewCPUSet(maxCPUs)
		if err := unix.SchedGetaffinityDynamic(tid, set); err != nil {
			continue // it has ended
		}
		all++
		if set.IsSet(cpu) {
			on++
		}
	}
	return on, all
}

// All threads leave the CPU, and may come back.
func TestKeepOff(t *testing.T) {
	cpus := slices.Clone(ownCPUs())
	if len(cpus) < 2 {
		t.Skip("this machine has one CPU")
	}
	back := keepOff(cpus[1])
	on, all := threadsOn(t, cpus[1])
	stay, _ := threadsOn(t, cpus[0])
	local, remote, ok := chooseCPUs()
	back()
	if on > 0 || stay < all {
		t.Errorf("%d of %d threads may use CPU %d, %d CPU %d", on, all, cpus[1], stay, cpus[0])
	}
	if !ok || local == remote {
		t.Errorf("the next lab gets the CPUs %d and %d: %v", local, remote, ok)
	}
	if on, all := threadsOn(t, cpus[1]); on != all {
		t.Errorf("afterwards %d of %d threads may use CPU %d", on, all, cpus[1])
	}
}
