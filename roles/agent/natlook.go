package agent

import (
	"errors"
	"io/fs"
	"syscall"

	"pfdivert/pfconf"
)

// Natlook asks this host's packet filter for the other side of a translated connection. That
// it knows none is pfconf.ErrNoState.
func Natlook(q pfconf.NATQuery) (pfconf.NATAnswer, error) {
	answer, err := natlook(q)
	switch {
	case errors.Is(err, pfconf.ErrNoState):
		err = hinted{err, "ask while the connection lives, with the addresses that this side of the filter sees; 'pfdivert pf-setup states' lists them"}
	case errors.Is(err, fs.ErrPermission):
		err = hinted{err, "only root may ask the packet filter: start it with sudo or doas"}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENXIO):
		err = hinted{err, "this kernel offers no pf here: is it loaded, and /dev/pf visible in this jail?"}
	}
	return answer, err
}
