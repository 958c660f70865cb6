package splat

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// KernelLog reads this machine's kernel log from now on. Its methods may be used from several
// goroutines at once.
type KernelLog struct {
	mu  sync.Mutex
	fd  int
	f   Finder
	buf [8 << 10]byte // a record has at most CONSOLE_EXT_LOG_MAX bytes, which is 8192
}

// Open opens the log (Documentation/ABI/testing/dev-kmsg). With kernel.dmesg_restrict only
// CAP_SYSLOG may read it.
func Open() (*KernelLog, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/kmsg", Err: err}
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("/dev/kmsg: go to its end: %w", err)
	}
	return &KernelLog{fd: fd}, nil
}

// Take returns the reports that came since the last call. It does not wait.
func (l *KernelLog) Take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 {
		return nil
	}
	for {
		n, err := unix.Read(l.fd, l.buf[:])
		switch {
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR): // some were overwritten; the next are there
			continue
		case err != nil || n <= 0:
			return l.f.Take()
		}
		if text, ok := kernelText(string(l.buf[:n])); ok {
			l.f.Line(text)
		}
	}
}

// kernelText returns the text of a record, "PRIORITY,SEQUENCE,TIME,FLAGS;TEXT\n KEY=VALUE\n", if
// the kernel itself wrote it.
func kernelText(record string) (text string, ok bool) {
	head, rest, _ := strings.Cut(record, ";")
	priority, _, _ := strings.Cut(head, ",")
	if n, err := strconv.Atoi(priority); err != nil || n>>3 != 0 { // LOG_FACILITY
		return "", false
	}
	text, _, _ = strings.Cut(rest, "\n")
	return text, true
}

// Close closes the log.
func (l *KernelLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	fd := l.fd
	l.fd = -1
	return unix.Close(fd)
}
