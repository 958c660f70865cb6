package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"pfdivert/matrix/script"
)

// diverter takes packets out of their way and puts them back. It holds what
// the system needs to put the packet back that take gave last.
type diverter interface {
	// take waits for a packet, valid until the next call. from is what the
	// system says of where it came from; invalid where it says nothing.
	take(deadline time.Time) (b []byte, from netip.AddrPort, err error)
	// reinject sends the packet taken last on its way, in the shape of b.
	reinject(b []byte) error
	// drop ends the packet taken last.
	drop() error
	close() error
}

// abilities are what not every system's packet role has; see script.Divert.
type abilities struct{ read, recv, writeTo, drop, share bool }

// unable tells what of a specification the system's packet role can't do.
func (a abilities) unable(s script.Divert) error {
	for _, x := range []struct {
		what        string
		wanted, can bool
	}{
		{"taking packets by read(2)", s.Call == script.Read, a.read},
		{"taking packets by recv(2)", s.Call == script.Recv, a.recv},
		{"taking packets by " + string(s.Call), s.Call != "" && s.Call != script.Read && s.Call != script.Recv, false},
		{"writing to another address", s.WriteTo.IsValid(), a.writeTo},
		{"binding without privilege", s.Unprivileged, a.drop},
		{"sharing a port", s.Shared, a.share},
	} {
		if x.wanted && !x.can {
			return fmt.Errorf("divert socket: %s: %w (%s)", x.what, ErrUnsupported, runtime.GOOS)
		}
	}
	return nil
}

// namer is a diverter that knows by which interface the packet taken last came.
type namer interface{ interfaceName() string }

// divert is the packet role: a divert(4) socket, on Linux a netfilter queue.
type divert struct {
	spec   script.Divert
	log    *transcript
	dev    diverter
	held   *packet // handed out and not yet relayed
	kept   []kept  // the oldest first
	closed bool
}

func openDivert(s script.Divert, log *transcript) (Endpoint, error) {
	if err := divertAbilities.unable(s); err != nil {
		return nil, err
	}
	dev, err := newDiverter(s)
	if err != nil {
		return nil, err
	}
	log.address("divert sock", s.Local)
	return &divert{spec: s, log: log, dev: dev}, nil
}

// Receive hands out the next packet's payload and holds the packet.
func (e *divert) Receive(deadline time.Time) (script.Message, error) {
	if e.held != nil {
		return script.Message{}, errors.New("receive: a packet waits to be relayed")
	}
	if e.closed {
		return script.Message{}, errClosed
	}
	b, from, err := e.dev.take(deadline)
	if err != nil {
		return script.Message{}, err
	}
	e.log.address("recv from", from)
	e.log.packet("<<<", b)
	parse := parsePacket
	if e.spec.Fragments {
		parse = parsePiece
	}
	p, err := parse(b)
	if err != nil {
		// No one can rewrite it; it must not stay in the way of those behind it.
		return script.Message{}, errors.Join(fmt.Errorf("diverted packet: %w", err), e.dev.drop())
	}
	e.held = p
	m := script.Message{Data: bounded(e.spec.Big, p.payload()), From: p.from, To: p.to, Via: from}
	if n, ok := e.dev.(namer); ok {
		m.Interface = n.interfaceName()
	}
	return m, nil
}

// chooser is a diverter whose packets have ids: it can put back another one than it gave last, or
// hand that on.
type chooser interface {
	chosen() uint32
	choose(uint32)
	handOn(port uint16) error
}

// kept is a packet that is reinjected later.
type kept struct {
	id     uint32
	packet *packet
}

// maxKept bounds how many packets an endpoint keeps.
const maxKept = script.MaxQueue

// keep puts the held packet aside.
func (e *divert) keep() error {
	c, ok := e.dev.(chooser)
	if !ok || len(e.kept) >= maxKept {
		return fmt.Errorf("keep packet %d: %w", len(e.kept), ErrUnsupported)
	}
	p := *e.held
	p.raw = slices.Clone(p.raw)
	e.kept, e.held = append(e.kept, kept{c.chosen(), &p}), nil
	return nil
}

// free reinjects the newest or the oldest packet that is kept, rewritten.
func (e *divert) free(newest bool, old, new []byte) error {
	at := 0
	if newest {
		at = len(e.kept) - 1
	}
	k := e.kept[at]
	e.kept = slices.Delete(e.kept, at, at+1)
	e.dev.(chooser).choose(k.id)
	e.held = k.packet
	_, err := e.Relay(old, new)
	return err
}

// Relay rewrites the held packet and sends it on.
func (e *divert) Relay(old, new []byte) (script.Message, error) {
	p := e.held
	if p == nil {
		return script.Message{}, errors.New("relay: no packet is held")
	}
	if e.spec.Fragments {
		return script.Message{}, errors.New("relay: it may be a piece of a packet")
	}
	m := script.Message{Data: bounded(e.spec.Big, p.payload()), From: p.from, To: p.to}
	if err := p.replace(old, new); err != nil {
		return script.Message{}, fmt.Errorf("relay: %w", err)
	}
	e.setChecksums(p)
	if err := e.reinject(p); err != nil {
		return script.Message{}, fmt.Errorf("relay: %w", err)
	}
	e.log.packet(">>>", p.raw)
	if p.data < len(p.raw) {
		m.Sent = bounded(e.spec.Big, p.payload())
	}
	return m, nil
}

// reinject ends the holding of a packet and puts it back.
func (e *divert) reinject(p *packet) error {
	e.held = nil
	if e.spec.Omits(script.Back) {
		return e.dev.drop()
	}
	return e.dev.reinject(p.raw)
}

// setChecksums computes the checksums of a rewritten packet, or makes them wrong, as the socket is
// asked to.
func (e *divert) setChecksums(p *packet) {
	switch {
	case e.spec.Corrupt != "":
		p.spoil(e.spec.Corrupt)
	case !kernelFixesChecksums && !e.spec.Omits(script.Checksum):
		p.fixChecksums()
	}
}

// turner is a diverter that can put a packet back on the other way than it came: in at
// the interface with the address, or out with the unspecified address.
type turner interface {
	turn(netip.Addr)
}

// Turn makes the packet that a packet endpoint holds an answer to itself, with old in its payload
// replaced by new, and sends it in the other direction: one that came in goes out (in is the
// unspecified address), one that was to leave comes in at the interface that has the address in.
func Turn(ep Endpoint, old, new []byte, in netip.Addr) error {
	e, ok := ep.(*divert)
	if !ok || e.held == nil {
		return errors.New("turn: no packet is held")
	}
	t, ok := e.dev.(turner)
	if !ok {
		return fmt.Errorf("turn a packet round: %w", ErrUnsupported)
	}
	p := e.held
	if e.spec.Fragments {
		return errors.New("turn: it may be a piece of a packet")
	}
	if err := p.replace(old, new); err != nil {
		return fmt.Errorf("turn: %w", err)
	}
	p.turn()
	e.setChecksums(p)
	t.turn(in)
	if err := e.reinject(p); err != nil {
		return fmt.Errorf("turn: %w", err)
	}
	e.log.packet(">>>", p.raw)
	return nil
}

// Rest takes the packets that are waiting and ends them.
func (e *divert) Rest() ([]script.Message, error) {
	if e.closed {
		return nil, nil
	}
	return rest(func(deadline time.Time) (script.Message, error) {
		m, err := e.Receive(deadline)
		if err == nil {
			e.held = nil
			err = e.dev.drop()
		}
		return m, err
	})
}

// Names returns the divert port.
func (e *divert) Names() (local, peer netip.AddrPort) { return e.spec.Local, netip.AddrPort{} }

// Close closes the divert socket; the kernel drops what it still holds.
func (e *divert) Close() error {
	if e.closed {
		return nil
	}
	e.closed, e.held = true, nil
	err := e.dev.close()
	e.log.text("Shutdown packet")
	return err
}

// Errors has nothing to tell: no one answers the packet role.
func (e *divert) Errors() []string { return nil }

// CloseConn has nothing to close.
func (e *divert) CloseConn() error { return nil }

var (
	errClosed     = errors.New("endpoint is closed")
	errPacketRole = errors.New("the packet role neither connects nor accepts nor sends")
)

// Connect, Connected, Accept and Send are for the other roles.
func (e *divert) Connect() error                { return errPacketRole }
func (e *divert) Connected(time.Time) error     { return errPacketRole }
func (e *divert) Accept(time.Time) error        { return errPacketRole }
func (e *divert) Send(_ []byte, _ uint16) error { return errPacketRole }

// parseFreeBSDDivert reads what netstat(1) of FreeBSD 15 prints of divert, for both families.
func parseFreeBSDDivert(text string) (d script.Dropped, err error) {
	for line := range strings.Lines(text) {
		number, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		lost := strings.HasSuffix(what, "failed to divert due to no socket bound at port")
		if strings.HasPrefix(what, "packet") && lost {
			d.NoSocket, err = strconv.ParseUint(number, 10, 64)
			return d, err
		}
	}
	return d, fmt.Errorf("netstat does not tell what was dropped: %q", appendPrintable(nil, []byte(text)))
}

// parseDivertStats reads what netstat(1) of OpenBSD prints of divert or divert6.
func parseDivertStats(text string) (d script.Dropped, err error) {
	known := map[string]*uint64{
		"dropped due to no socket": &d.NoSocket, "dropped due to full socket buffers": &d.NoRoom,
	}
	for line := range strings.Lines(text) {
		number, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		if to := known[what]; to != nil {
			if *to, err = strconv.ParseUint(number, 10, 64); err != nil {
				return d, fmt.Errorf("netstat: %w", err)
			}
			delete(known, what)
		}
	}
	if len(known) > 0 {
		return d, fmt.Errorf("netstat does not tell what was dropped: %q", appendPrintable(nil, []byte(text)))
	}
	return d, nil
}
