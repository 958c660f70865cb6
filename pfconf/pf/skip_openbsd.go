package pf

import (
	"errors"
	"os"
)

// Skip has pf see the packets of an interface, or not see them as with `set skip on`. The rules
// that are loaded stay as they are. It takes write access to /dev/pf, which only root has.
func Skip(name string, on bool) (err error) {
	dev, err := os.OpenFile("/dev/pf", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	return skip(name, on, ioctlOf(dev))
}
