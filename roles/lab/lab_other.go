//go:build !linux

package lab

import (
	"context"
	"errors"
	"os/exec"
	"runtime"

	"pfdivert/pfconf"
)

// Lab is a lab that stands; only Linux has one.
type Lab struct {
	Config   Config
	Families []pfconf.Family
	Missing  map[pfconf.Family]string
}

var errSystem = errors.New("lab: no network namespaces on " + runtime.GOOS)

// Build fails: only Linux has network namespaces.
func Build(context.Context, Config) (*Lab, error) { return nil, errSystem }

// New fails, see Build.
func New(Config) (*Lab, error) { return nil, errSystem }

// Connect fails, see Build.
func (l *Lab) Connect(context.Context) error { return errSystem }

// In fails, see Build.
func (l *Lab) In(HostName, func() error) error { return errSystem }

// Start fails, see Build.
func (l *Lab) Start(*exec.Cmd, HostName) error { return errSystem }

// Close does nothing.
func (l *Lab) Close() {}

// Run fails: only Linux has network namespaces.
func Run(context.Context, []string, RunOptions, Stdio) (int, error) { return 0, errSystem }

// Inner fails, see Run.
func Inner(context.Context, []string, Stdio) (int, error) { return 0, errSystem }
