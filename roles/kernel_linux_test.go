package roles

import (
	"fmt"
	"os"
	"time"

	"pfdivert/roles/host"
)

// fakeKernel, in the environment, is what the kernel does that the test binary, as QEMU, boots.
const fakeKernel = "PFDIVERT_TEST_KERNEL"

// fakeQEMU is QEMU with a kernel that is this machine's, and what else it does.
func fakeQEMU(kernel string) (status int) {
	console := os.NewFile(6, "console")
	panics := func() {
		fmt.Fprintf(console, "[    3.000000] Kernel panic - not syncing: a test\n[    3.000001] Call Trace:\n")
	}
	switch kernel {
	case "hanging":
		fmt.Fprintln(console, "[    0.000000] Linux version 6.99.0")
		time.Sleep(time.Minute) // it is killed
		return 1
	case "panicking":
		fmt.Fprintln(console, "[    0.000000] Linux version 6.99.0")
		panics()
		return 0
	case "bad": // it dies while it is tested
		time.AfterFunc(3*time.Second, func() {
			panics()
			os.Exit(0)
		})
	}
	fmt.Fprintln(console, "[    0.000000] Linux version 6.99.0")
	os.Args[0] = "pfdivert" // which starts the agents
	local, remote, errs := os.NewFile(3, "local"), os.NewFile(4, "remote"), os.NewFile(5, "errors")
	err := host.LabOn(host.LabOptions{Args: []string{"agent", "-lab"}},
		[3]*os.File{local, local, errs}, [3]*os.File{remote, remote, errs})
	if err != nil {
		fmt.Fprintln(console, err)
		return 1
	}
	return 0
}
