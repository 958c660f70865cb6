package socket

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Await waits for what comes late, through all its parts, and ends with its context.
func TestAwait(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	stopped := errors.New("stopped")
	ctx, stop := context.WithCancelCause(t.Context())
	time.AfterFunc(3*heedEvery/2, func() { stop(stopped) })
	if err := Await(ctx, pipe[0], unix.POLLIN); !errors.Is(err, stopped) {
		t.Errorf("nothing came, and it ended with %v", err)
	}
	time.AfterFunc(5*heedEvery/2, func() { _, _ = unix.Write(pipe[1], []byte("x")) })
	if err := Await(t.Context(), pipe[0], unix.POLLIN); err != nil {
		t.Error(err)
	}
	if err := Await(ctx, pipe[0], unix.POLLIN); err != nil {
		t.Errorf("what is there is not taken when the time is up: %v", err)
	}
}
