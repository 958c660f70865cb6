//go:build !linux

package roles

// fakeKernel is unused: kernels are tested on Linux.
const fakeKernel = "PFDIVERT_TEST_KERNEL"

func fakeQEMU(string) int { return 1 }
