//go:build !linux

package lab

import "context"

// Run fails: only Linux has network namespaces.
func Run(context.Context, []string, RunOptions, Stdio) (int, error) { return 0, errSystem }

// Inner fails, see Run.
func Inner(context.Context, []string, Stdio) (int, error) { return 0, errSystem }
