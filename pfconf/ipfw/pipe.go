package ipfw

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"pfdivert/pfconf"
)

// UndoPipe removes a pipe of dummynet(4), whose number is its argument.
const UndoPipe = "ipfw/pipe"

var _ pfconf.Shaper = (*Firewall)(nil)

// noDummynet is the error of a kernel without dummynet(4).
type noDummynet struct{ error }

// Missing says what the kernel lacks.
func (noDummynet) Missing() string { return "dummynet(4)" }

func (e noDummynet) Unwrap() error { return e.error }

// Pipe makes a pipe of dummynet(4) that lets packets through, or with lossy loses them all, and
// changes one that it has made. A pipe that others have made is left alone.
func (f *Firewall) Pipe(ctx context.Context, number uint16, lossy bool) error {
	f.load.Lock()
	defer f.load.Unlock()
	if f.closed {
		return errors.New("ipfw's pipes have been removed")
	}
	name := strconv.Itoa(int(number))
	if !f.pipes[number] {
		shown, err := f.ipfw(ctx, "", "pipe", name, "show")
		if err != nil {
			return err
		}
		if strings.TrimSpace(shown) != "" {
			return fmt.Errorf("dummynet has a pipe %d that is not this program's", number)
		}
		if f.journal != nil {
			if err := f.journal(pfconf.Undo{Do: UndoPipe, Args: []string{name}}); err != nil {
				return fmt.Errorf("recording how to remove pipe %d: %w", number, err)
			}
		}
		if f.pipes == nil {
			f.pipes = map[uint16]bool{}
		}
		f.pipes[number] = true
	}
	// A pipe that delays has what goes through it come back later, as on a real link.
	how := []string{"delay", "10"}
	if lossy {
		how = []string{"plr", "1"}
	}
	_, err := f.ipfw(ctx, "", append([]string{"pipe", name, "config"}, how...)...)
	if unloaded(err) {
		delete(f.pipes, number)
		return noDummynet{fmt.Errorf("the kernel has no dummynet(4): %w", err)}
	}
	return err
}

// removePipe removes a pipe; one that is gone is no error.
func (c *Control) removePipe(ctx context.Context, name string) error {
	shown, err := c.ipfw(ctx, "", "pipe", name, "show")
	if err != nil || strings.TrimSpace(shown) == "" {
		return err
	}
	_, err = c.ipfw(ctx, "", "-q", "pipe", name, "delete")
	return err
}

// removePipes removes all that Pipe has made.
func (f *Firewall) removePipes(ctx context.Context) error {
	var errs []error
	for number := range f.pipes {
		err := f.removePipe(ctx, strconv.Itoa(int(number)))
		if err == nil {
			delete(f.pipes, number)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
