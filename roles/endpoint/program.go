package endpoint

import (
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"
)

// forks keeps the beginnings of programs and the ends of sockets apart. From fork to
// exec a child holds every descriptor of this process, those too that are closed on
// exec: a socket that is closed here in that time lives on, connected and with
// its state in pf, until the child has come to exec. Sockets are closed side by
// side (Linux takes 11 ms for some), programs start alone.
var forks sync.RWMutex

// Start starts the program as its own method does, while no socket of an endpoint is
// being closed. Who runs programs beside endpoints starts them so.
func Start(cmd *exec.Cmd) error {
	forks.Lock()
	defer forks.Unlock()
	return cmd.Start() // comes back when the child is past exec
}

// closeSocket closes a socket of an endpoint.
func closeSocket(fd int) error {
	forks.RLock()
	defer forks.RUnlock()
	return unix.Close(fd)
}
