package netlink

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"pfdivert/roles/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

func open(t testing.TB, protocol int) *Socket {
	t.Helper()
	s, err := Open(protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Only the kernel gets a message onto a Socket.
func TestOnlyTheKernel(t *testing.T) {
	labtest.Need(t)
	s := open(t, unix.NETLINK_SOCK_DIAG)
	own, err := unix.Getsockname(s.FD())
	if err != nil {
		t.Fatal(err)
	}
	other, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	if err := unix.Sendto(other, make([]byte, 16), 0, own); err == nil {
		t.Error("another socket's message was taken")
	}
	if err := s.Drain(func(m Message) { t.Errorf("%+v", m) }); err != nil {
		t.Error(err)
	}
}

// Of a transaction that is refused, the wrong messages are named and nothing is done.
func TestCommit(t *testing.T) {
	labtest.Need(t)
	s := open(t, unix.NETLINK_NETFILTER)
	r := s.Transaction()
	table := func(message, flags uint16, name string) uint32 {
		seq := r.Netfilter(Nft(message), flags, unix.NFPROTO_INET, 0)
		r.AttrString(unix.NFTA_TABLE_NAME, name)
		return seq
	}
	table(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "good")
	wrong := table(unix.NFT_MSG_DELTABLE, 0, "absent")
	rejected, err := s.Commit(r, func(Message) {})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Skip(err)
	}
	if err != nil || len(rejected) != 1 || rejected[wrong] != unix.ENOENT ||
		!errors.Is(r.FirstOf(rejected), unix.ENOENT) {
		t.Errorf("rejected %v, %v", rejected, err)
	}
	tables := func() (names []string) {
		t.Helper()
		r := s.Request()
		r.Netfilter(Nft(unix.NFT_MSG_GETTABLE), unix.NLM_F_DUMP, unix.NFPROTO_INET, 0)
		err := s.Dump(r, func(m Message) error {
			_, b := m.Netfilter()
			names = append(names, string(Attribute(b, unix.NFTA_TABLE_NAME)))
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return names
	}
	if names := tables(); names != nil {
		t.Errorf("tables %q", names)
	}
	r = s.Transaction()
	table(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "good")
	if err := s.CommitAll(r); err != nil {
		t.Error(err)
	}
	if names := tables(); !slices.Equal(names, []string{"good\x00"}) {
		t.Errorf("tables %q", names)
	}
	// A list whose reader fails is read to its end: the next one may begin.
	failed := errors.New("no")
	r = s.Request()
	r.Netfilter(Nft(unix.NFT_MSG_GETTABLE), unix.NLM_F_DUMP, unix.NFPROTO_INET, 0)
	if err := s.Dump(r, func(Message) error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	if names := tables(); len(names) != 1 {
		t.Errorf("tables %q", names)
	}
}

// The kernel's sockets are listed with their options.
func TestListInet(t *testing.T) {
	labtest.Need(t)
	s := open(t, unix.NETLINK_SOCK_DIAG)
	for _, transparent := range []int{0, 1} {
		config := net.ListenConfig{}
		l, err := config.Listen(t.Context(), "tcp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var refused error
		err = raw.Control(func(fd uintptr) {
			refused = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, transparent)
		})
		if err := errors.Join(err, refused); err != nil {
			t.Fatal(err)
		}
		list, err := s.ListInet(unix.AF_INET, unix.IPPROTO_TCP, StateListen)
		if err != nil {
			t.Fatal(err)
		}
		at := l.Addr().(*net.TCPAddr).AddrPort()
		i := slices.IndexFunc(list, func(s InetSocket) bool { return s.Local.Port() == at.Port() })
		if i < 0 || list[i].State != StateListen || list[i].UID != uint32(os.Getuid()) ||
			list[i].Transparent != (transparent == 1) {
			t.Errorf("transparent %d: %+v", transparent, list)
		}
		if _, err := s.FindTCP(at, netip.MustParseAddrPort("127.0.0.1:1")); !errors.Is(err, ErrNoSocket) {
			t.Errorf("a listener is found: %v", err)
		}
	}
}

// inetMessage is a struct inet_diag_msg in a byte order, with an INET_DIAG_SOCKOPT.
func inetMessage(order binary.AppendByteOrder, options byte) []byte {
	b := append([]byte{unix.AF_INET, StateListen, 0, 0}, make([]byte, 48)...)
	binary.BigEndian.PutUint16(b[4:], 8000)
	copy(b[8:], []byte{192, 0, 2, 1})
	for _, n := range []uint32{1, 2, 3, 1000, 5} {
		b = order.AppendUint32(b, n)
	}
	b = binary.NativeEndian.AppendUint16(b, 6)
	b = binary.NativeEndian.AppendUint16(b, diagSockopt)
	return append(b, options, 0, 0, 0)
}

// The bit-fields of struct inet_diag_sockopt are given out from the other end on machines of the
// other byte order: a transparent socket sets 1<<5 on x86-64 and 1<<2 on s390x, where 1<<5 is a
// freebind one. Bits as gcc has them.
func TestSocketOptions(t *testing.T) {
	for _, c := range []struct {
		order                 binary.AppendByteOrder
		options               byte
		transparent, freeBind bool
	}{
		{binary.LittleEndian, 0x20, true, false}, {binary.LittleEndian, 0x04, false, true},
		{binary.LittleEndian, 0xff &^ 0x24, false, false},
		{binary.BigEndian, 0x04, true, false}, {binary.BigEndian, 0x20, false, true},
		{binary.BigEndian, 0xff &^ 0x24, false, false},
	} {
		s, err := parseInet(inetMessage(c.order, c.options), c.order.(binary.ByteOrder))
		if err != nil || s.Transparent != c.transparent || s.FreeBind != c.freeBind || !s.TransparentKnown ||
			s.UID != 1000 || s.Inode != 5 || s.Local != netip.MustParseAddrPort("192.0.2.1:8000") {
			t.Errorf("%v %#x: %+v, %v", c.order, c.options, s, err)
		}
	}
}

func TestTCPState(t *testing.T) {
	for n, want := range map[uint8]string{
		1: "ESTABLISHED", 6: "TIME_WAIT", 7: "CLOSED", StateListen: "LISTEN", 12: "SYN_RCVD", 13: "BOUND_INACTIVE",
		0: "", 14: "", 255: "",
	} {
		if got, err := TCPState(n); got != want || (err == nil) != (want != "") {
			t.Errorf("%d: %q, %v", n, got, err)
		}
	}
}

// FuzzParse: whatever comes, the parsers stay within it.
func FuzzParse(f *testing.F) {
	s := Socket{seq: 5}
	r := s.Request()
	r.Netfilter(Nft(unix.NFT_MSG_NEWTABLE), 0, unix.NFPROTO_INET, 7)
	r.AttrString(unix.NFTA_TABLE_NAME, "a table")
	r.Add(unix.NLMSG_ERROR, 0, 0xff, 0xff, 0xff, 0xff)
	r.Add(unix.SOCK_DIAG_BY_FAMILY, 0, inetMessage(binary.NativeEndian, 1)...)
	f.Add(r.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		_, _ = parse(b, func(m Message) bool {
			total += unix.NLMSG_HDRLEN + len(m.Body)
			_ = m.Acknowledged()
			_, attributes := m.Netfilter()
			for _, data := range Attributes(attributes) {
				_ = Attribute(data, 1)
			}
			_, _ = parseInet(m.Body, binary.NativeEndian)
			return true
		})
		if total > len(b) {
			t.Errorf("messages of %d bytes in %d", total, len(b))
		}
	})
}
