//go:build openbsd || freebsd

package gather

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"pfdivert/matrix/evidence"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// capture records an interface, and what pf logs where there is pflog0, with bpf(4). The kernel
// keeps the packets in two buffers; they are taken from there when someone asks and, before the
// buffers are full, now and then.
type capture struct {
	recorder
	taps []*tap
	buf  []byte
	stop chan struct{}
	done chan struct{}
}

// tap is an open bpf device.
type tap struct {
	nic  string
	mac  net.HardwareAddr
	link evidence.LinkType
	skip int // bytes before what the link type begins with
	fd   int
	size int // of the kernel's buffers, as which they must be read

	wanted *bpf.VM // which of pflog's packets are kept, by what begins with the IP header
}

// bpfBuffer is the size of each of the kernel's two buffers of a device: some 1000 packets.
const bpfBuffer = 256 << 10

// takeEvery is how often packets are taken from the kernel.
const takeEvery = 200 * time.Millisecond

// pflogInterface is where pf logs what rules with "log" match (pflog(4)).
const pflogInterface = "pflog0"

// openCapture begins to record. What ends with this process does so quickly: nothing lingers.
func openCapture(nic string, f Filter, _ bool) (*capture, error) {
	c := &capture{stop: make(chan struct{}), done: make(chan struct{})}
	t, err := openTap(nic, f)
	if err != nil {
		return nil, err
	}
	c.taps = []*tap{t}
	if i, err := net.InterfaceByName(pflogInterface); err == nil && i.Flags&net.FlagUp != 0 {
		t, err := openTap(pflogInterface, f)
		if err != nil {
			return nil, errors.Join(err, c.shut())
		}
		c.taps = append(c.taps, t)
	}
	for _, t := range c.taps {
		c.buf = make([]byte, max(len(c.buf), t.size))
	}
	go c.run()
	return c, nil
}

func openTap(nic string, f Filter) (*tap, error) {
	i, err := net.InterfaceByName(nic)
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", nic, err)
	}
	t := &tap{nic: nic, mac: i.HardwareAddr}
	const device = "/dev/bpf"
	t.fd, err = unix.Open(device, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: device, Err: err}
	}
	if err := t.begin(f); err != nil {
		return nil, errors.Join(fmt.Errorf("bpf on %s: %w", nic, err), unix.Close(t.fd))
	}
	return t, nil
}

// begin has the kernel record the interface.
func (t *tap) begin(f Filter) error {
	size := uint32(bpfBuffer)
	if err := t.ioctl("BIOCSBLEN", unix.BIOCSBLEN, unsafe.Pointer(&size)); err != nil {
		return err
	}
	t.size = int(size)   // the kernel may give less
	var request [32]byte // struct ifreq, which begins with the name
	copy(request[:unix.IFNAMSIZ-1], t.nic)
	if err := t.ioctl("BIOCSETIF", unix.BIOCSETIF, unsafe.Pointer(&request)); err != nil {
		return err
	}
	var kind uint32
	if err := t.ioctl("BIOCGDLT", unix.BIOCGDLT, unsafe.Pointer(&kind)); err != nil {
		return err
	}
	var offset int
	switch kind {
	case unix.DLT_EN10MB:
		t.link, offset = evidence.LinkEthernet, evidence.EthernetHeader
	case unix.DLT_RAW:
		t.link = evidence.LinkRaw
	case unix.DLT_NULL, unix.DLT_LOOP: // the family in four bytes
		t.link, t.skip, offset = evidence.LinkRaw, 4, 4
	case unix.DLT_PFLOG:
		return t.beginPflog(f)
	default:
		return fmt.Errorf("link type %d is not known here", kind)
	}
	program, err := f.program(uint32(offset))
	if err != nil {
		return err
	}
	return t.filter(program)
}

// beginPflog has all kept that pf logs: its header is not as long on all releases, and
// what is no cell's is left out here.
func (t *tap) beginPflog(f Filter) error {
	t.link = evidence.LinkPflog
	program, err := f.program(0)
	if err != nil {
		return err
	}
	instructions, _ := bpf.Disassemble(program)
	if t.wanted, err = bpf.NewVM(instructions); err != nil {
		return err
	}
	const header = 128 // at most
	all, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: header + snapLength}})
	if err != nil {
		return err
	}
	return t.filter(all)
}

// filter has the kernel keep what the program accepts, and forgets what came before.
func (t *tap) filter(program []bpf.RawInstruction) error {
	filter := make([]unix.BpfInsn, len(program))
	for n, in := range program {
		filter[n] = unix.BpfInsn{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	err := t.ioctl("BIOCSETF", unix.BIOCSETF,
		unsafe.Pointer(&unix.BpfProgram{Len: uint32(len(filter)), Insns: &filter[0]}))
	runtime.KeepAlive(filter)
	return err
}

func (t *tap) ioctl(name string, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(t.fd), uintptr(request), uintptr(arg)); errno != 0 {
		return os.NewSyscallError(name, errno)
	}
	return nil
}

// run takes packets from the kernel now and then.
func (c *capture) run() {
	defer close(c.done)
	t := time.NewTicker(takeEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			c.mu.Lock()
			_ = c.take() // whoever looks is told
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
	err := c.take()
	packets, forgot := c.of(a, began)
	err = errors.Join(err, forgot)
	slices.SortStableFunc(packets, func(a, b evidence.Packet) int { return a.Time.Compare(b.Time) })
	for _, t := range c.taps {
		var s unix.BpfStat
		if e := t.ioctl("BIOCGSTATS", unix.BIOCGSTATS, unsafe.Pointer(&s)); e != nil {
			err = errors.Join(err, e)
		} else if s.Drop > 0 {
			err = errors.Join(err, fmt.Errorf("%d packets of %s were lost, as too many came at once", s.Drop, t.nic))
		}
	}
	return packets, err
}

// take moves the packets that wait in the kernel to the recorder.
func (c *capture) take() error {
	var errs []error
	for _, t := range c.taps {
		errs = append(errs, t.take(c.buf[:t.size], c.add))
	}
	return errors.Join(errs...)
}

// take returns each packet that waits.
func (t *tap) take(buf []byte, give func(evidence.Packet)) error {
	for {
		n, err := unix.Read(t.fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN || err == nil && n == 0: // FreeBSD and OpenBSD
			return nil
		case err != nil: // the interface is gone
			return fmt.Errorf("bpf on %s: %w", t.nic, os.NewSyscallError("read", err))
		}
		err = layout.parse(buf[:n], func(p evidence.Packet) {
			p = t.packet(p)
			if t.wanted != nil {
				if keep, err := t.wanted.Run(p.IP()); err != nil || keep == 0 {
					return
				}
			}
			p.Data = bytes.Clone(p.Data)
			give(p)
		})
		if err != nil {
			return err
		}
	}
}

// packet says of a packet that was read what its header does not.
func (t *tap) packet(p evidence.Packet) evidence.Packet {
	p.Interface, p.Link = t.nic, t.link
	skip := min(t.skip, len(p.Data))
	p.Data = p.Data[skip:]
	p.Length -= skip
	switch {
	case t.link == evidence.LinkPflog:
		p.Direction, _ = evidence.PflogDirection(p.Data)
	case p.Direction == "" && t.link == evidence.LinkEthernet && len(p.Data) >= evidence.EthernetHeader:
		// What the host sends bears its own address.
		if p.Direction = "in"; bytes.Equal(p.Data[6:12], t.mac) {
			p.Direction = "out"
		}
	}
	return p
}

func (c *capture) close() error {
	close(c.stop)
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shut()
}

func (c *capture) shut() error {
	var errs []error
	for _, t := range c.taps {
		errs = append(errs, os.NewSyscallError("close", unix.Close(t.fd)))
	}
	c.taps = nil
	return errors.Join(errs...)
}
