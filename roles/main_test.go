package roles

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pfdivert/matrix"
	"pfdivert/roles/kernel"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/testbed"
)

// asProgram, in the environment, makes the test binary be the program: whatever
// a test starts under this program's name is instrumented as the test is.
const asProgram = "PFDIVERT_TEST_PROGRAM"

// countLeaks, in the environment, has an agent complain about goroutines that it
// leaves behind.
const countLeaks = "PFDIVERT_TEST_LEAKS"

// bootSilence, in the environment, is how long a kernel that boots may be silent.
const bootSilence = "PFDIVERT_TEST_SILENCE"

func TestMain(m *testing.M) {
	// The race detector has a process that ends wait for a second, in case that
	// others still race; here agents end by the hundred.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	// The lab that it builds starts its own executable, as an agent.
	if strings.HasPrefix(filepath.Base(os.Args[0]), "qemu-system-") && os.Args[1] != agentRole.Name {
		os.Exit(fakeQEMU(os.Getenv(fakeKernel)))
	}
	// The tests of a guest are its program; see kernelhost_linux_test.go.
	if kernel.IsInit() || kernel.IsModprobe(os.Args) || len(os.Args) > 1 && os.Args[1] == kernel.GuestRole {
		os.Exit(Main("test", os.Args, Standard()))
	}
	if os.Getenv(proxyHost) != "" && len(os.Args) == 1 {
		os.Exit(beProxyHost())
	}
	kernel.Static = false // a test binary needs libraries
	if text := os.Getenv(bootSilence); text != "" {
		kernel.BootSilence, _ = time.ParseDuration(text)
	}
	if os.Getenv(asProgram) == "" && (len(os.Args) < 2 || os.Args[1] != agentRole.Name) {
		os.Exit(labtest.Main(m))
	}
	status := Main("test", os.Args, Standard())
	if os.Getenv(countLeaks) != "" {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = exitError
		}
	}
	os.Exit(status)
}

// reach builds a lab whose agents are children of the test.
func reach(t testing.TB, o testbed.Options) *testbed.Pair {
	t.Helper()
	labtest.Need(t)
	p, err := testbed.ReachLab(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// runPlan runs the plan in the lab and returns the results by target.
func runPlan(t testing.TB, p *testbed.Pair, plan matrix.Plan, opt matrix.Options) map[string]matrix.Result {
	t.Helper()
	var mu sync.Mutex
	results := map[string]matrix.Result{}
	err := matrix.Run(t.Context(), p.Hosts.Tested(), plan, opt, func(r matrix.Result) {
		mu.Lock()
		defer mu.Unlock()
		results[r.Name] = r
	})
	if err != nil {
		t.Fatal(p.Explain(err))
	}
	return results
}
