package matrix

import (
	"context"
	"iter"
	"math/rand/v2"
	"slices"
	"time"
)

// Plan is which targets are run, how often and in which order.
type Plan struct {
	Targets []Target
	// Rounds is how often each target is run; 0 and 1 are once.
	Rounds int
	// For, if not 0, is how long new rounds begin, in place of Rounds.
	For time.Duration
	// Seed, if not 0, shuffles each round.
	Seed uint64
}

// Repeats reports whether targets are run more than once.
func (p Plan) Repeats() bool { return p.Rounds > 1 || p.For > 0 }

// order returns the targets in the order in which they are run, until ctx is
// done.
func (p Plan) order(ctx context.Context) iter.Seq[Target] {
	return func(yield func(Target) bool) {
		random := rand.New(rand.NewPCG(p.Seed, 0))
		end := time.Now().Add(p.For)
		targets := slices.Clone(p.Targets)
		for round := 0; ; round++ {
			switch {
			case round == 0:
			case p.For > 0 && time.Now().After(end):
				return
			case p.For == 0 && round >= p.Rounds:
				return
			}
			if p.Seed != 0 {
				random.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
			}
			for _, t := range targets {
				if ctx.Err() != nil || p.For > 0 && round > 0 && time.Now().After(end) || !yield(t) {
					return
				}
			}
		}
	}
}
