package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf/need"
	"pfdivert/pfconf/nft"
	"pfdivert/pfconf/rtnetlink"
	"pfdivert/roles/middlebox"
	"pfdivert/roles/socket"
)

// frameKind is a type of frames that is for experiments (IEEE 802, 0x88B5), and bridgeQueue the
// netfilter queue of a namespace in which there is no other.
const (
	frameKind   = 0x88b5
	bridgeQueue = 1
)

// bridgeGoes carries the step out on a thread in a network namespace that ends with it.
func bridgeGoes(ctx context.Context, st script.BridgeGoes) (text string, err error) {
	nft.OnOwnThread(func() {
		if err = os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNET)); err == nil {
			text, err = bridged(ctx, st.Stays)
		}
	})
	return text, err
}

// middlebox carries the step out with the engine and the pieces of the run's packet filter.
func (a *agent) middlebox(ctx context.Context, s *session, st script.Middlebox) (*script.Middle, error) {
	a.setup.Lock()
	c := nft.Config{Engine: a.filters.Filter, Omit: pieces(&a.filters)}
	a.setup.Unlock()
	var log bounded
	m, err := middlebox.Run(ctx, st, c, &log)
	s.log = append(s.log, script.Transcript{End: st.Name(), Text: log.String()})
	return m, explainNFT(err)
}

// bridged has two cables end at a bridge. What is sent into the one must come out of the other:
// all that is waited for must come, so a slow host may take the cell's time for it.
func bridged(ctx context.Context, stays bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, script.CellTimeout)
	defer cancel()
	routes, err := rtnetlink.Dial()
	if err != nil {
		return "", err
	}
	defer routes.Close()
	var wires [2]int // descriptors: the ends away from the bridge
	var port int     // the second port's descriptor
	var ports [2]rtnetlink.Link
	for i := range wires {
		wire, name := fmt.Sprintf("wire%d", i), fmt.Sprintf("port%d", i)
		link, err := routes.AddLink(rtnetlink.NewLink{Name: wire, Kind: rtnetlink.Veth,
			Peer: &rtnetlink.NewLink{Name: name}})
		if err != nil {
			return "", fmt.Errorf("create veth pair: %w", err)
		}
		if ports[i], err = routes.Link(name); err != nil {
			return "", err
		}
		for _, l := range []rtnetlink.Link{link, ports[i]} {
			if err := routes.SetUp(l.Index); err != nil {
				return "", fmt.Errorf("bring %s up: %w", l.Name, err)
			}
		}
		if err := carrier(ctx, routes, ports[i].Index); err != nil {
			return "", err
		}
		if wires[i], err = openFrames(link.Index); err != nil {
			return "", err
		}
		defer unix.Close(wires[i])
	}
	if port, err = openFrames(ports[1].Index); err != nil {
		return "", err
	}
	defer unix.Close(port)
	bridge, err := routes.AddLink(rtnetlink.NewLink{Name: "bridge0", Kind: rtnetlink.Bridge})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = &need.MissingError{Feature: need.Bridge, Err: err}
	}
	if err != nil {
		return "", fmt.Errorf("create a bridge: %w", err)
	}
	// A port that joins a bridge which is up forwards at once: it speaks no spanning tree.
	err = routes.SetUp(bridge.Index)
	for _, p := range ports {
		err = errors.Join(err, routes.SetMaster(p.Index, bridge.Index))
	}
	if err != nil {
		return "", fmt.Errorf("connect the bridge: %w", err)
	}
	if err := nft.QueueBridged(frameKind, bridgeQueue); err != nil {
		return "", err
	}
	queue, err := socket.OpenQueue(bridgeQueue)
	if err != nil {
		return "", err
	}
	defer queue.Close()
	waits := func(frame string) error {
		if err := sendFrame(wires[0], frame); err != nil {
			return err
		}
		if _, err := queue.Take(ctx); err != nil {
			return fmt.Errorf("the frame did not come to the queue: %w", err)
		}
		return nil
	}
	// Control: with the bridge there, what is released goes on.
	if err := waits("control"); err != nil {
		return "", err
	}
	if err := queue.Release(); err != nil {
		return "", err
	}
	if got, err := receiveFrame(ctx, wires[1]); err != nil || got != "control" {
		return "", fmt.Errorf("the frame that was released was not bridged: %q, %w", got, err)
	}
	if err := waits("waiting"); err != nil {
		return "", err
	}
	if !stays {
		if err := routes.DeleteLink(bridge.Index); err != nil {
			return "", fmt.Errorf("delete the bridge: %w", err)
		}
	}
	// The kernel may have dropped it with the bridge.
	if err := queue.Release(); err != nil && !errors.Is(err, unix.ENOENT) {
		return "", err
	}
	if err := sendFrame(port, "fence"); err != nil { // behind what may have come from the bridge
		return "", err
	}
	switch got, err := receiveFrame(ctx, wires[1]); {
	case err != nil:
		return "", fmt.Errorf("nothing comes by a port of the bridge that was: %w", err)
	case got == "fence":
		return script.Lost, nil
	}
	return script.Arrived, nil
}

// carrier waits until the interface has one: the kernel says so from a work queue.
func carrier(ctx context.Context, routes *rtnetlink.Conn, index int) error {
	for {
		link, err := routes.LinkAt(index)
		if err != nil || link.State == rtnetlink.OperUp {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s has no carrier: %w", link.Name, ctx.Err())
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// openFrames opens a packet socket for frames of the kind on an interface.
func openFrames(index int) (int, error) {
	kind := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, frameKind))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket(AF_PACKET)", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: kind, Ifindex: index}); err != nil {
		_ = unix.Close(fd)
		return 0, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// sendFrame sends one to all.
func sendFrame(fd int, data string) error {
	to, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	all, ok := to.(*unix.SockaddrLinklayer)
	if !ok {
		return fmt.Errorf("a packet socket's name is a %T", to)
	}
	all.Halen, all.Addr = 6, [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	return os.NewSyscallError("sendto", unix.Sendto(fd, []byte(data), 0, all))
}

// receiveFrame receives the next one.
func receiveFrame(ctx context.Context, fd int) (string, error) {
	for {
		if err := socket.Await(ctx, fd, unix.POLLIN); err != nil {
			return "", err
		}
		b := make([]byte, 64)
		n, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return "", os.NewSyscallError("recvfrom", err)
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		return string(b[:n]), nil
	}
}
