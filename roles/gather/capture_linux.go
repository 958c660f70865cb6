package gather

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"pfdivert/matrix/evidence"
	"time"

	"golang.org/x/sys/unix"
)

// capture records an interface with a packet socket (packet(7)). The kernel keeps the
// packets in the socket, where they cost little; they are taken from there when someone asks
// and, before the socket is full, now and then. A mapped ring would cost a run 16 ms: the
// kernel waits for all processors when one is set up (packet_set_ring, net/packet/af_packet.c).
type capture struct {
	recorder
	nic  string
	link evidence.LinkType
	fd   int
	buf  [snapLength]byte
	oob  [128]byte
	stop chan struct{}
	done chan struct{}

	lingers bool
}

// socketBuffer is asked for. Without privilege in the first user namespace the kernel gives
// twice net.core.rmem_max, which is some 500 packets.
const socketBuffer = 4 << 20

// How often packets are taken from the socket: a cell has some 20, and hundreds of cells
// come in a second.
const (
	takeEvery      = 200 * time.Millisecond
	takeEverySmall = 15 * time.Millisecond
)

// openCapture begins to record. lingers has the kernel close the socket some time after this
// process has ended.
func openCapture(nic string, f Filter, lingers bool) (*capture, error) {
	i, err := net.InterfaceByName(nic)
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", nic, err)
	}
	c := &capture{nic: nic, link: evidence.LinkEthernet, stop: make(chan struct{}), done: make(chan struct{}),
		lingers: lingers}
	kind, offset := unix.SOCK_RAW, uint32(evidence.EthernetHeader)
	if len(i.HardwareAddr) != 6 && i.Flags&net.FlagLoopback == 0 {
		c.link, kind, offset = evidence.LinkRaw, unix.SOCK_DGRAM, 0 // a tunnel
	}
	program, err := f.program(offset)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	// Protocol 0: nothing is captured before the filter is there.
	c.fd, err = unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_PACKET)", err)
	}
	filters := make([]unix.SockFilter, len(program))
	for n, in := range program {
		if in.Op == unix.BPF_RET|unix.BPF_K && in.K != 0 {
			in.K = 1 << 18 // what is cut off here would not be counted in the packet's length
		}
		filters[n] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	err = os.NewSyscallError("SO_ATTACH_FILTER", unix.SetsockoptSockFprog(c.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]}))
	every := takeEvery
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer) != nil {
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer)
		every = takeEverySmall
	}
	if err == nil {
		err = os.NewSyscallError("SO_TIMESTAMPNS", unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
	}
	if err == nil && lingers {
		err = linger(c.fd)
	}
	if err == nil {
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		err = os.NewSyscallError("bind", unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}))
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(c.fd))
	}
	go c.run(every)
	return c, nil
}

// linger has the socket closed by the kernel after this process has ended. To close a packet
// socket the kernel waits for all processors, some 16 ms (synchronize_net in packet_release,
// net/packet/af_packet.c), and the end of a process would wait for it. So the socket is put into
// the queue of a Unix socket that is in its own queue. When the process has ended no one can
// reach it any more, and closing it is left to the kernel's collector of such garbage
// (net/unix/garbage.c), which is in no process's way. Until then the pair stays open.
func linger(fd int) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	return os.NewSyscallError("SCM_RIGHTS", unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd, pair[1]), nil, 0))
}

// run takes packets from the socket now and then.
func (c *capture) run(every time.Duration) {
	defer close(c.done)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			c.mu.Lock()
			c.take()
			c.mu.Unlock()
		case <-c.stop:
			return
		}
	}
}

// look takes what waits and gives a cell's packets.
func (c *capture) look(a evidence.About, began time.Time) ([]evidence.Packet, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.take(); err != nil {
		return nil, err
	}
	packets, forgot := c.of(a, began)
	if s, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		c.lost += int64(s.Drops) // the kernel begins again at zero
	}
	if c.lost > 0 {
		return packets, errors.Join(forgot, fmt.Errorf("%d packets of %s were lost, as too many came at once", c.lost,
			c.nic))
	}
	return packets, forgot
}

// take moves the packets that wait in the socket to the recorder.
func (c *capture) take() error {
	had := len(c.packets)
	defer func() { stampedLate(c.packets[min(had, len(c.packets)):]) }()
	for {
		n, oobn, _, from, err := unix.Recvmsg(c.fd, c.buf[:], c.oob[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return nil
		case err != nil: // ENETDOWN, told once
			return os.NewSyscallError("recvmsg", err)
		}
		p := evidence.Packet{Interface: c.nic, Link: c.link, Direction: "in", Length: n, Time: timestamp(c.oob[:oobn])}
		p.Data = append([]byte(nil), c.buf[:min(n, len(c.buf))]...)
		if a, ok := from.(*unix.SockaddrLinklayer); ok && a.Pkttype == unix.PACKET_OUTGOING {
			p.Direction = "out"
		}
		c.add(p)
	}
}

// stampedLate fixes the times of packets that came before the kernel began to stamp them, which it
// does a while after it was asked to (net_enable_timestamp, net/core/dev.c). They have the
// time at which they were read, and came before those behind them.
func stampedLate(packets []evidence.Packet) {
	for i := len(packets) - 2; i >= 0; i-- {
		if packets[i].Time.After(packets[i+1].Time) {
			packets[i].Time = packets[i+1].Time
		}
	}
}

// timestamp reads SCM_TIMESTAMPNS (socket(7), SO_TIMESTAMP).
func timestamp(oob []byte) time.Time {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Now()
	}
	for _, m := range all {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SO_TIMESTAMPNS {
			continue
		}
		switch b := m.Data; { // a struct timespec of two longs
		case len(b) >= 16:
			return time.Unix(int64(binary.NativeEndian.Uint64(b)), int64(binary.NativeEndian.Uint64(b[8:])))
		case len(b) >= 8:
			return time.Unix(int64(int32(binary.NativeEndian.Uint32(b))), int64(binary.NativeEndian.Uint32(b[4:])))
		}
	}
	return time.Now()
}

func (c *capture) close() error {
	close(c.stop)
	<-c.done
	if c.lingers {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := unix.Close(c.fd)
	c.fd = -1
	return os.NewSyscallError("close", err)
}
