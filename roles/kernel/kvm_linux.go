package kernel

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// accelerated reports whether the kernel of this machine runs guests of the architecture.
func accelerated(arch string) bool {
	if arch != runtime.GOARCH && !(arch == "386" && runtime.GOARCH == "amd64") {
		return false
	}
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	const create = 0xae01 // KVM_CREATE_VM of linux/kvm.h
	vm, err := unix.IoctlRetInt(fd, create)
	if err != nil {
		return false
	}
	unix.Close(vm)
	return true
}
