package matrix

import (
	"context"
	"sync"
)

// Round trips are what a run over a long way waits for, so they are counted: in the
// context, along the longest chain of those that wait for one another.

type roundTripsKey struct{}

// withRoundTrips returns a context in which round trips are counted from zero.
func withRoundTrips(ctx context.Context) (context.Context, *int) {
	n := new(int)
	return context.WithValue(ctx, roundTripsKey{}, n), n
}

// countRoundTrips counts round trips.
func countRoundTrips(ctx context.Context, more int) {
	if n, ok := ctx.Value(roundTripsKey{}).(*int); ok {
		*n += more
	}
}

// both runs two things at the same time and gives the first's error before the
// second's.
func both(ctx context.Context, a, b func(context.Context) error) error {
	ctxA, tripsA := withRoundTrips(ctx)
	ctxB, tripsB := withRoundTrips(ctx)
	var errB error
	var wg sync.WaitGroup
	wg.Go(func() { errB = b(ctxB) })
	errA := a(ctxA)
	wg.Wait()
	countRoundTrips(ctx, max(*tripsA, *tripsB))
	if errA != nil {
		return errA
	}
	return errB
}
