package twin

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"pfdivert/roles/lab/namespace"
)

// Replay builds the configuration in an empty namespace. Each device that leads anywhere gets its
// other end, with the same name and index, in outside; that end has no address, and is switched off
// unless nexthop objects need it.
// Devices, addresses, routes, rules and sets are the host's, with its numbers. Sockets are not
// copied.
//
// What the kernel did not take is returned, and the rest is there. An error means that there is no
// copy.
func (c *Snapshot) Replay(ctx context.Context, inside, outside *Netns) ([]Difference, error) {
	r := &replay{Snapshot: c, ctx: ctx}
	if ok, err := veth.there(); err == nil && !ok {
		r.lack("module", "the kernel loads veth for the twin, and keeps it")
	}
	if err := outside.Do(calm); err != nil {
		return nil, err
	}
	err := inside.Do(func() error {
		if err := calm(); err != nil {
			return err
		}
		for _, step := range []func() error{
			r.vacant, r.settings,
			func() error { return r.devices(outside.FD()) },
			func() error { return r.connect(outside) },
			r.routes,
			r.settings, // a device may have reset some
			r.ipsets, r.nft, r.legacy,
		} {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := step(); err != nil {
				return namespace.Explain(err)
			}
		}
		return nil
	})
	return r.lacks, err
}

// connect switches the other ends of devices on where nexthop objects are to be made: these are
// refused for a device without a carrier.
func (r *replay) connect(outside *Netns) error {
	if len(r.Nexthops) == 0 {
		return nil
	}
	c, err := outside.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	var requests []request
	for _, l := range r.Links {
		if _, out := r.wired(l); out && l.Up() && l.Carrier {
			requests = append(requests, linkUp(l.Index))
		}
	}
	_, err = performAll(r.ctx, c, requests) // one that is not there was told of
	return err
}

// replay is a replay under way, on the thread of the copy's namespace.
type replay struct {
	*Snapshot
	ctx   context.Context
	lacks []Difference
}

// lack notes what the kernel did not take.
func (r *replay) lack(what, format string, args ...any) {
	r.lacks = append(r.lacks, Difference{what, fmt.Sprintf(format, args...)})
}

// calm keeps the devices that the thread's namespace has and will get from writing to the host's
// log, as its first namespace may do, and from choosing addresses of their own.
func calm() error {
	for _, of := range []string{"all", "default", "lo"} {
		if err := writeSetting("ipv4/conf/"+of+"/log_martians", "0"); err != nil {
			return err
		}
	}
	if !hasIPv6() {
		return nil
	}
	for _, s := range []struct{ name, value string }{
		{"accept_ra", "0"}, {"addr_gen_mode", "1"}, {"autoconf", "0"}, {"router_solicitations", "0"},
	} {
		if err := writeSetting("ipv6/conf/default/"+s.name, s.value); err != nil {
			return err
		}
	}
	return nil
}

// writeSetting writes a file below /proc/sys/net, of the thread's namespace.
func writeSetting(name, value string) error {
	f, err := os.OpenFile("/proc/sys/net/"+name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// settings writes those settings of no device that are not the host's.
func (r *replay) settings() error {
	var now Dump
	now.Settings = map[string]string{}
	now.readSettings()
	for _, name := range settings {
		want, asked := r.Settings[name]
		if got, ok := now.Settings[name]; !asked || ok && got == want {
			continue
		}
		if err := writeSetting(name, want); err != nil && !r.told(name) {
			r.lack("setting", "%s is %s on the host: %v", name, want, err)
		}
	}
	return nil
}

// OccupiedError says that a new network namespace has a device where the host has another.
type OccupiedError struct {
	Device string // the kernel's own, such as tunl0
	Index  int
	Host   string // the host's device with this index
}

func (e *OccupiedError) Error() string {
	return fmt.Sprintf("the kernel gives each new network namespace a device %s with index %d, which %s has on the host", e.Device, e.Index, e.Host)
}

// Hint is what to do about it, for people.
func (e *OccupiedError) Hint() string {
	return "sysctl -w net.core.fb_tunnels_only_for_init_net=2 and try again, or run what -save wrote on a machine without tunnels"
}

// vacant makes sure that the namespace has no device where the host has another.
func (r *replay) vacant() error {
	now := &Dump{}
	if err := now.readRoutes(r.ctx, unix.RTM_GETLINK); err != nil {
		return err
	}
	twin, err := decode(now)
	if err != nil {
		return err
	}
	for _, l := range twin.Links {
		if there := r.link(l.Index); there != nil && !l.Loopback {
			return &OccupiedError{l.Name, l.Index, there.Name}
		}
	}
	return nil
}

// told reports whether a setting was noted already: they are written twice.
func (r *replay) told(name string) bool {
	for _, d := range r.lacks {
		if d.What == "setting" && len(d.Text) > len(name) && d.Text[:len(name)+1] == name+" " {
			return true
		}
	}
	return false
}

// route performs requests of rtnetlink in the thread's namespace and has told say what failed.
func (r *replay) route(requests []request, told func(i int, err error)) error {
	c, err := dial(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	failed, err := performAll(r.ctx, c, requests)
	for i := range requests {
		if failed[i] != nil {
			told(i, failed[i])
		}
	}
	return err
}
