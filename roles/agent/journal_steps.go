package agent

import (
	"context"
	"fmt"
	"strings"

	"pfdivert/pfconf"
	"pfdivert/pfconf/ipfw"
	"pfdivert/pfconf/nft"
	"pfdivert/pfconf/pf"
	"pfdivert/pfconf/program"
	"pfdivert/roles/lab/bsd"
	"pfdivert/roles/lab/spoil"
)

// undoStep does one step of a journal and says what it did. The directory's turn
// must be held.
func (d stateDir) undoStep(ctx context.Context, u pfconf.Undo) (string, error) {
	var err error
	switch owner, _, _ := strings.Cut(u.Do, "/"); owner {
	case "nft":
		err = nft.Undo(ctx, u)
	case "ipfw":
		err = ipfw.Restore(ctx, nil, u)
	case "pf":
		err = pf.Restore(ctx, nil, u)
	case "lab":
		err = bsd.Undo(ctx, program.Exec, u)
	case "spoil":
		err = spoil.Undo(ctx, program.Exec, u)
	case "route":
		return d.undoRoute(ctx, u)
	case "trace":
		err = undoTraces(u)
	default:
		err = fmt.Errorf("undo %q %q: not a step of this program", u.Do, u.Args)
	}
	return Describe(u), err
}

// Describe says what a step of a journal does.
func Describe(u pfconf.Undo) string {
	arg := func(i int) string {
		if i < len(u.Args) {
			return printable(u.Args[i])
		}
		return "?"
	}
	switch u.Do {
	case "nft/table":
		return "delete table inet " + nft.TableName
	case "nft/states":
		return "delete the diverted flows' conntrack entries"
	case "nft/ip-rule":
		return fmt.Sprintf("delete the %s policy rule to table %d", arg(0), nft.Table)
	case "nft/local-route":
		return fmt.Sprintf("delete the local route to %s in table %d", arg(0), nft.Table)
	case "nft/early-demux":
		return "set net.ipv4.ip_early_demux to " + arg(0)
	case ipfw.UndoSets:
		return fmt.Sprintf("delete ipfw's sets %s and %s", arg(0), arg(1))
	case ipfw.UndoExthdrs:
		return "have ipfw deny unknown IPv6 protocols"
	case pf.UndoAnchor:
		return fmt.Sprintf("put the rules of anchor %q back", arg(0))
	case pf.UndoLabels:
		return "remove the states of the run's labels"
	case spoil.UndoSetting:
		return fmt.Sprintf("set %s to %s", arg(0), arg(1))
	case undoTraceFolder:
		return "remove the traces in " + arg(0)
	case undoAddedRoute:
		return fmt.Sprintf("delete the route to %s via %s", arg(0), arg(1))
	}
	if s := bsd.Describe(u); s != "" {
		return printable(s)
	}
	return fmt.Sprintf("%q %q", u.Do, u.Args)
}
