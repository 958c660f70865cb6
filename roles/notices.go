package roles

import (
	"fmt"
	"io"
	"os"
	"os/user"

	"pfdivert/roles/agent"
)

// relay prints what the agents say unasked: whom they wait for, what killed runs had left.
func (p *pair) relay(w io.Writer) {
	for name, conn := range map[string]*agent.Conn{"local": p.hosts.Local, "remote": p.hosts.Remote} {
		go tellNotices(w, name, conn)
	}
}

// tellNotices prints what one agent says unasked, until it ends.
func tellNotices(w io.Writer, name string, conn *agent.Conn) {
	for text := range conn.Notices {
		fmt.Fprintf(w, "%s: %s\n", name, text)
	}
}

// whoRuns says who runs this, and where, for those who have to wait. What is not
// known is left out.
func whoRuns(getenv func(string) string) string {
	name := getenv("SUDO_USER")
	if u, err := user.Current(); err == nil && name == "" {
		name = u.Username
	}
	host, _ := os.Hostname()
	return fmt.Sprintf("%s@%s, process %d", name, host, os.Getpid())
}
