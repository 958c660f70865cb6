package agent

import (
	"context"
	"errors"
	"time"

	"pfdivert/matrix/script"
	"pfdivert/roles/endpoint"
)

// socketPatience is how long a TCP socket is looked for that must be there, or
// waited for to go. Linux's look-up takes no lock and can miss a socket while it goes
// over to TIME_WAIT (net/ipv4/inet_timewait_sock.c); the BSDs may take a moment to get
// from one state to the next.
const (
	socketPatience = 100 * time.Millisecond
	socketPause    = 500 * time.Microsecond
)

// tcpSocket carries out a Drop or TCPState step. One that says in Data what it expects
// is asked again, for a while, as long as the answer is another.
func tcpSocket(ctx context.Context, st *script.Step, out *script.Outcome) error {
	end := time.Now().Add(socketPatience)
	for {
		var err error
		if st.Do == script.Drop {
			err = endpoint.Drop(ctx, st.Near, st.Far)
		} else {
			out.Text, err = endpoint.TCPState(ctx, st.Near, st.Far)
		}
		none := errors.Is(err, endpoint.ErrNoSocket)
		expected := st.Data == ""
		switch {
		case err != nil && !none:
			return err
		case st.Data == script.Gone:
			expected = none
		case st.Do == script.Drop:
			expected = expected || !none
		case st.Data != "":
			expected = !none && out.Text == st.Data
		}
		if expected || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(socketPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
