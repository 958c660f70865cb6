//go:build !linux

package nft

import "fmt"

// statement is one of a rule's. Only Linux has expressions for it.
type statement interface{ fmt.Stringer }
