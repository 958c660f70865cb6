package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"pfdivert/pfconf"
)

// The undo steps.
const (
	undoTable    = "nft/table"          // no arguments
	undoStates   = "nft/states"         // no arguments
	undoRule     = "nft/ip-rule"        // inet or inet6
	undoRoute    = "nft/local-route"    // prefix
	undoLookup   = "nft/lookup-route"   // prefix
	undoSysctl   = "nft/early-demux"    // value
	undoLocalnet = "nft/route-localnet" // interface and value
	undoLegacy   = "nft/xt-legacy"      // inet or inet6, table
	undoXT       = "nft/xt"             // inet or inet6, table, and what was not there before: chains, wholeTable
	undoBPF      = "nft/bpf"            // interface, and clsact if it was not there before
)

// undo does one step of a journal. What is undone already stays so.
func (h *host) undo(u pfconf.Undo) error {
	malformed := fmt.Errorf("undo %s %q: not a step of this program", u.Do, u.Args)
	arg := ""
	switch {
	case u.Do == undoTable && len(u.Args) == 0:
		return h.delTable()
	case u.Do == undoStates && len(u.Args) == 0:
		return h.delStates()
	case u.Do == undoLegacy && len(u.Args) == 2:
		var f pfconf.Family
		if f.UnmarshalText([]byte(u.Args[0])) != nil {
			return malformed
		}
		_, err := h.delLegacy(f, u.Args[1])
		return err
	case u.Do == undoXT && len(u.Args) >= 2:
		var f pfconf.Family
		if f.UnmarshalText([]byte(u.Args[0])) != nil {
			return malformed
		}
		return h.delXT(table{tableFamily(f), u.Args[1]}, u.Args[2:])
	case u.Do == undoBPF && (len(u.Args) == 1 || len(u.Args) == 2 && u.Args[1] == clsact):
		return h.delBPF(u.Args[0], len(u.Args) == 2)
	case u.Do == undoLocalnet && len(u.Args) == 2 && (Config{Interface: u.Args[0]}).validate() == nil:
		if _, err := strconv.ParseUint(u.Args[1], 10, 8); err != nil {
			return malformed
		}
		return setLocalnet(u.Args[0], u.Args[1])
	case len(u.Args) != 1:
		return malformed
	default:
		arg = u.Args[0]
	}
	switch u.Do {
	case undoRule:
		var f pfconf.Family
		if f.UnmarshalText([]byte(arg)) == nil {
			return h.delRule(f)
		}
	case undoRoute:
		if p, err := netip.ParsePrefix(arg); err == nil {
			return h.delRoute(p)
		}
	case undoLookup:
		if p, err := netip.ParsePrefix(arg); err == nil {
			return h.delLookupRoute(p)
		}
	case undoSysctl:
		if _, err := strconv.ParseUint(arg, 10, 8); err == nil {
			return h.setDemux(arg)
		}
	}
	return malformed
}

// Undo does one step of the journal of a driver that was killed, in the
// current network namespace. A step that is done already, or was never
// needed, is no error.
func Undo(ctx context.Context, u pfconf.Undo) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h, err := openHost()
	if err != nil {
		return fmt.Errorf("undo %s: %w", u.Do, err)
	}
	return errors.Join(h.undo(u), h.close())
}
