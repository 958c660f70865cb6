package agent

import (
	"context"
	"errors"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/roles/socket"
)

// socketPatience is how long a TCP socket is looked for that must be there, or
// waited for to go. Linux's look-up takes no lock and can miss a socket while it goes
// over to TIME_WAIT (net/ipv4/inet_timewait_sock.c); the BSDs may take a moment to get
// from one state to the next.
const (
	socketPatience = 100 * time.Millisecond
	socketPause    = 500 * time.Microsecond
)

// dropTCP drops a TCP socket. One that must be there is looked for again, for a while.
func dropTCP(ctx context.Context, st script.DropTCP) error {
	return untilExpected(ctx, func() (expected bool, err error) {
		err = socket.Drop(ctx, st.Near, st.Far)
		return !st.Expected || !errors.Is(err, socket.ErrNoSocket), err
	})
}

// tcpState asks for the state of a TCP socket. When the step says what it expects, another answer
// is asked for again, for a while.
func tcpState(ctx context.Context, st script.TCPState) (state string, err error) {
	err = untilExpected(ctx, func() (expected bool, err error) {
		state, err = socket.TCPState(ctx, st.Near, st.Far)
		none := errors.Is(err, socket.ErrNoSocket)
		switch st.State {
		case "":
			return true, err
		case script.Gone:
			return none, err
		}
		return !none && state == st.State, err
	})
	return state, err
}

// untilExpected asks until the answer is the expected one, or time is up. That there is no socket
// is an answer; any other error ends it.
func untilExpected(ctx context.Context, ask func() (expected bool, err error)) error {
	end := time.Now().Add(socketPatience)
	for {
		expected, err := ask()
		if err != nil && !errors.Is(err, socket.ErrNoSocket) || expected || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(socketPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
