package middlebox

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/rtnetlink"
)

// The two VRFs, and their routing tables: the middle's interfaces are in the first.
const (
	vrfName  = "vrf0"
	otherVRF = "vrf1"
	vrfTable = 10
)

// vrfs makes the VRFs. They are there before the packet filter's policy rule, which the kernel puts
// before theirs: packets with the mark are routed by that.
func (b *box) vrfs() error {
	routes := b.middle.routes
	for i, name := range []string{vrfName, otherVRF} {
		vrf, err := routes.AddLink(rtnetlink.NewLink{Name: name, Kind: rtnetlink.VRF, Table: vrfTable + i})
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = &need.MissingError{Feature: need.VRF, Err: err}
		}
		if err != nil {
			return fmt.Errorf("create a VRF: %w", err)
		}
		if err := up(routes, vrf); err != nil {
			return err
		}
		if name != vrfName {
			continue
		}
		b.towards = vrf
		for _, port := range []rtnetlink.Link{b.left, b.right} {
			if err := routes.SetMaster(port.Index, vrf.Index); err != nil {
				return fmt.Errorf("put %s into a VRF: %w", port.Name, err)
			}
		}
	}
	value := "0"
	if b.Joint == script.AnyVRF && !b.omits(script.AllVRFs) {
		value = "1"
	}
	return setting("ipv4/tcp_l3mdev_accept", value)
}

// proxies opens the listeners on the rule's address.
func (b *box) proxies(ctx context.Context) error {
	proxy, other := listener{transparent: true}, listener{transparent: true, device: otherVRF}
	if b.Joint == script.VRF {
		proxy.device = vrfName
		if b.omits(script.Enslaved) {
			proxy.device, other.device = other.device, proxy.device
		}
		if err := b.listen(ctx, script.AtOther, b.Rule.Divert, other); err != nil {
			return err
		}
	}
	return b.listen(ctx, script.AtProxy, b.Rule.Divert, proxy)
}
