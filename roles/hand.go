package roles

import (
	"flag"
	"fmt"
	"net/netip"
	"time"

	"pfdivert/pfconf"
)

// handTimeout is how long a role that was started by hand waits, as upstream's
// do.
const handTimeout = 10 * time.Second

// handFlags are the flags that client and server share.
type handFlags struct {
	proto   string
	bind    netip.AddrPort
	bindany bool
	timeout time.Duration
}

func (h *handFlags) add(f *flag.FlagSet) {
	f.StringVar(&h.proto, "proto", "tcp", "`PROTO` is tcp, udp, rip (raw IP, protocol 254) or icmp (echo)")
	f.Func("bind", "own `ADDRESS` (10.1.2.3, 10.1.2.3:4000, [fd00::1]:4000)", func(s string) (err error) {
		h.bind, err = address(s)
		return err
	})
	f.BoolVar(&h.bindany, "bindany", false, "the own address need not be one of this host (SO_BINDANY, IP_TRANSPARENT)")
	f.DurationVar(&h.timeout, "timeout", handTimeout, "give up after this `TIME`")
}

// address reads an address with or without port.
func address(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	return netip.ParseAddrPort(s)
}

// protocol returns the protocol that a flag names.
func protocol(name string) (p pfconf.Proto, err error) {
	if err = p.UnmarshalText([]byte(name)); err != nil {
		err = hinted{err, "-proto tcp, udp, rip or icmp"}
	}
	return p, err
}

// must makes the first error of a chain of steps stop the rest.
type chain struct{ err error }

func (c *chain) do(what string, step func() error) {
	if c.err == nil {
		if err := step(); err != nil {
			c.err = fmt.Errorf("%s: %w", what, err)
		}
	}
}

// handHelp is the end of the hand roles' help.
const handHelp = `Exit status: 0 when all was sent and received, 1 when something did not arrive,
2 when the socket could not be opened.`
