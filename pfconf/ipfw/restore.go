package ipfw

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"pfdivert/pfconf"
	"pfdivert/pfconf/program"
)

// The steps that Restore knows.
const (
	// UndoSets removes the rules of two sets, which are its arguments, and enables both.
	UndoSets = "ipfw/sets"
	// UndoExthdrs has ipfw deny unknown IPv6 protocols again.
	UndoExthdrs = "ipfw/exthdrs"
)

func undoSets(a, b int) pfconf.Undo {
	return pfconf.Undo{Do: UndoSets, Args: []string{strconv.Itoa(a), strconv.Itoa(b)}}
}

// exthdrs is the sysctl by which ipfw drops IPv6 packets of protocols that it does not know
// (ipfw(8)), such as those of the raw IP cells.
const exthdrs = "net.inet6.ip6.fw.deny_unknown_exthdrs"

// DeniesUnknown reports whether ipfw is at work on this host for IPv6 and drops packets of
// protocols that it does not know.
func (c *Control) DeniesUnknown(ctx context.Context) (bool, error) {
	for _, name := range []string{enableName(pfconf.Inet6), exthdrs} {
		n, err := c.sysctl(ctx, name)
		if unloaded(err) {
			return false, nil
		}
		if err != nil || n == 0 {
			return false, err
		}
	}
	return true, nil
}

// PassUnknown is the command that ends that.
const PassUnknown = "sysctl " + exthdrs + "=0"

// passUnknown lets unknown protocols through, if they are not.
func (f *Firewall) passUnknown(ctx context.Context) error {
	n, err := f.sysctl(ctx, exthdrs)
	if err != nil || n == 0 {
		return err
	}
	if f.journal != nil {
		if err := f.journal(pfconf.Undo{Do: UndoExthdrs}); err != nil {
			return fmt.Errorf("recording how to set %s back: %w", exthdrs, err)
		}
	}
	f.exthdrs = true
	return f.setSysctl(ctx, exthdrs, 0)
}

func (c *Control) denyUnknown(ctx context.Context) error { return c.setSysctl(ctx, exthdrs, 1) }

// free removes the rules of two sets, enables both and looks whether the rules are gone.
func (c *Control) free(ctx context.Context, a, b int) error {
	_, err := c.do(ctx, fmt.Sprintf("delete set %d\ndelete set %d\nset enable %d %d\n", a, b, a, b))
	if err != nil {
		return fmt.Errorf("removing the rules of ipfw's sets %d and %d: %w", a, b, err)
	}
	rules, err := c.list(ctx)
	if err != nil {
		return fmt.Errorf("looking whether ipfw's sets %d and %d are empty: %w", a, b, err)
	}
	for _, e := range rules {
		if e.set == a || e.set == b {
			return fmt.Errorf("ipfw's set %d still has the rule %05d %s", e.set, e.number, e.text)
		}
	}
	return nil
}

// Restore undoes what a Firewall that was never closed left; an ipfw that was unloaded since has
// taken it along. When one of its sets holds rules that are not this program's, someone else has
// used it since, and both are left alone.
func Restore(ctx context.Context, run program.Runner, u pfconf.Undo) error {
	c := NewControl(run)
	if u.Do == UndoExthdrs && len(u.Args) == 0 {
		if err := c.denyUnknown(ctx); !unloaded(err) {
			return err
		}
		return nil
	}
	if u.Do == UndoPipe && len(u.Args) == 1 {
		if _, err := strconv.ParseUint(u.Args[0], 10, 16); err == nil {
			if err := c.removePipe(ctx, u.Args[0]); !unloaded(err) {
				return err
			}
			return nil
		}
	}
	bad := fmt.Errorf("not a step of ipfw to undo: %q %q", u.Do, u.Args)
	if u.Do != UndoSets || len(u.Args) != 2 {
		return bad
	}
	a, errA := strconv.Atoi(u.Args[0])
	b, errB := strconv.Atoi(u.Args[1])
	if errors.Join(errA, errB) != nil || min(a, b) < 1 || max(a, b) > lastSet {
		return bad
	}
	rules, err := c.list(ctx)
	switch {
	case unloaded(err):
		return nil
	case err != nil:
		return fmt.Errorf("reading ipfw's rules: %w", err)
	}
	for _, e := range rules {
		if (e.set == a || e.set == b) && e.label() == "" {
			return hinted{
				fmt.Errorf("ipfw's set %d has been used since by something else: %05d %s", e.set, e.number, e.text),
				fmt.Sprintf("look at `ipfw -S list`, and remove the rules whose comment begins with %q", pfconf.LabelPrefix),
			}
		}
	}
	return c.free(ctx, a, b)
}
