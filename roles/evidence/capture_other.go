//go:build !linux

package evidence

import "time"

// capture records an interface.
type capture struct{ recorder }

func openCapture(string, Filter, bool) (*capture, error) { return nil, errSystem }

func (c *capture) look(a About, began time.Time) ([]Packet, error) { return c.of(a, began), nil }

func (c *capture) close() error { return nil }
