package agent

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"pfdivert/roles/lab/labtest"
)

// asAgent makes the test program an agent on a real host; its value is StateDir.
const asAgent = "PFDIVERT_TEST_AGENT"

// testHeartbeat is that of the agents of tests.
const testHeartbeat = 2 * time.Second

func TestMain(m *testing.M) {
	if dir := os.Getenv(asAgent); dir != "" {
		signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := Serve(ctx, os.Stdin, os.Stdout, Options{Heartbeat: testHeartbeat, StateDir: dir}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		os.Exit(0)
	}
	// The race detector has a process that ends wait for a second; the agents must not.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	os.Exit(labtest.Main(m))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
