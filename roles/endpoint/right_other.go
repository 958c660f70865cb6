//go:build !linux

package endpoint

import "fmt"

// withoutRight does something without the right to bind foreign addresses.
func withoutRight(func() error) error { return fmt.Errorf("give a right up: %w", ErrUnsupported) }
