//go:build !linux

package roles

// fakeKernel is unused: kernels are tested on Linux.
const fakeKernel = "PFDIVERT_TEST_KERNEL"

func fakeQEMU(string) int { return 1 }

// proxyHost is unused: only doctor of Linux runs flows.
const proxyHost = "PFDIVERT_TEST_PROXY"

func beProxyHost() int { return 1 }
