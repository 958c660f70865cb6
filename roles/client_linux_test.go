package roles

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pfdivert/roles/lab"
	"pfdivert/roles/lab/labtest"
	"pfdivert/roles/lab/namespace"
)

// hosts builds the lab's hosts around a thread of the test: no orchestrator and no
// agent are there.
func hosts(t *testing.T) *lab.Lab {
	t.Helper()
	labtest.Need(t)
	type built struct {
		lab *lab.Lab
		err error
	}
	done := make(chan built)
	namespace.OwnThread(func() {
		var b built
		if b.err = unix.Unshare(unix.CLONE_NEWNET); b.err == nil {
			b.lab, b.err = lab.Build(context.Background(), lab.Config{})
		}
		done <- b
	})
	b := <-done
	if b.err != nil {
		t.Fatal(b.err)
	}
	t.Cleanup(b.lab.Close)
	return b.lab
}

// role is a role that someone started by hand on a host.
type role struct {
	name   string
	cmd    *exec.Cmd
	lines  chan string
	said   strings.Builder // what was taken from lines
	stderr strings.Builder
}

// start starts the program with these arguments on a host.
func start(t *testing.T, l *lab.Lab, h lab.HostName, args string) *role {
	t.Helper()
	r := &role{name: args, lines: make(chan string, 64)}
	r.cmd = exec.Command(filepath.Join(program(t), "pfdivert"), strings.Fields(args)...)
	r.cmd.Env = append(os.Environ(), asProgram+"=1")
	r.cmd.Stderr = &r.stderr
	out, err := r.cmd.StdoutPipe()
	if err == nil {
		err = l.Start(r.cmd, h)
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.lines)
		for s := bufio.NewReader(out); ; {
			line, err := s.ReadString('\n')
			if line != "" {
				r.lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		for range r.lines {
		}
		_ = r.cmd.Wait()
	})
	return r
}

// says waits until the role has said a line that begins with what.
func (r *role) says(t *testing.T, what string) {
	t.Helper()
	late := time.After(soon)
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				t.Fatalf("%s: ended without %q:\n%s%s", r.name, what, &r.said, &r.stderr)
			}
			r.said.WriteString(line)
			if strings.HasPrefix(line, what) {
				return
			}
		case <-late:
			t.Fatalf("%s: has not said %q, but\n%s%s", r.name, what, &r.said, &r.stderr)
		}
	}
}

// ends waits for the role's end, which must be with exit status 0, and judges
// that it has said all this and no more. <n> stands for a
// number, <x> for hexadecimal digits.
func (r *role) ends(t *testing.T, want ...string) {
	t.Helper()
	for line := range r.lines {
		io.WriteString(&r.said, line)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s%s", r.name, err, &r.said, &r.stderr)
		return
	}
	pattern := strings.NewReplacer("<n>", "[0-9]+", "<x>",
		"[0-9a-f]+").Replace(regexp.QuoteMeta(strings.Join(want, "\n")))
	if got := strings.TrimSpace(r.said.String()); !regexp.MustCompile("^" + pattern + "$").MatchString(got) {
		t.Errorf("%s: said\n%s\nwant\n%s", r.name, got, strings.Join(want, "\n"))
	}
}

// interrupt has pf-setup put back what was there before.
func (r *role) interrupt(t *testing.T, want ...string) {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	r.ends(t, want...)
}

const (
	anchorLine = `# pf.conf, anchor "regress"`
	loadedLine = "loaded; interrupt to put back what was there before"
)

// TestHandInterrupted: what waits for the other end is ended by a signal.
func TestHandInterrupted(t *testing.T) {
	l := hosts(t)
	for role, says := range map[string]string{
		"server -bind 127.0.0.1:4000": "listen sock", "client -proto icmp -bind 10.188.1.1 10.208.0.9": "connect sock",
		"packet 666": "divert sock",
	} {
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			host := lab.Remote
			if strings.HasPrefix(role, "client") {
				host = lab.Local
			}
			r := start(t, l, host, role)
			r.says(t, says)
			if err := r.cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_ = r.cmd.Wait()
			if w := r.cmd.ProcessState.Sys().(syscall.WaitStatus); w.Signal() != s || time.Since(began) > soon {
				t.Errorf("%s: %v after %v, want %v", role, w, time.Since(began), s)
			}
		}
	}
}

// Roles that are started by hand play a cell together without orchestrator and
// agent. Each waits for the other by what it prints, as a person does.
func TestHandDivertTo(t *testing.T) {
	l := hosts(t)
	for _, f := range []struct{ local, fake, loop, server, family string }{
		{"10.188.1.1", "10.208.0.9", "127.0.0.1", "127.0.0.1:4000", "inet"},
		{"fd00:188:1::1", "fd00:188:2::9", "::1", "[::1]:4000", "inet6"},
	} {
		t.Run(f.family, func(t *testing.T) {
			to := f.fake + ":4000"
			if f.family == "inet6" {
				to = "[" + f.fake + "]:4000"
			}
			rule := start(t, l, lab.Remote, "pf-setup -proto tcp -from "+f.local+" -to "+f.fake+" -port 4000")
			rule.says(t, "loaded")
			server := start(t, l, lab.Remote, "server -diverted -bind "+f.server)
			server.says(t, "listen sock")
			client := start(t, l, lab.Local, "client -bind "+f.local+" "+to)
			client.ends(t,
				"connect sock: "+f.local+" <n>", "connect peer: "+f.fake+" 4000", ">>> Client", "<<< Server",
				"Shutdown client")
			server.ends(t,
				"listen sock: "+f.loop+" 4000", "accept from: "+f.local+" <n>", "accept sock: "+f.fake+" 4000",
				"accept peer: "+f.local+" <n>", ">>> Server", "<<< Client", "Shutdown server")
			rule.interrupt(t,
				anchorLine, fmt.Sprintf(
					"pass in log %s proto tcp from %s to %s port 4000 divert-to %s port 4000 label regress", f.family, f.local, f.fake, f.loop),
				loadedLine, "nftables: the rule matched <n> packets, its action served <n>")
		})
	}
}

func TestHandDivertReply(t *testing.T) {
	l := hosts(t)
	rule := start(t, l, lab.Remote, "pf-setup -action divert-reply -proto udp -from 10.208.0.9 -to 10.188.1.1 -port 4000")
	rule.says(t, "loaded")
	server := start(t, l, lab.Local, "server -proto udp -answer -bind 10.188.1.1:4000")
	server.says(t, "listen sock")
	client := start(t, l, lab.Remote, "client -proto udp -answer -bindany -bind 10.208.0.9 10.188.1.1:4000")
	client.ends(t, "connect sock: 10.208.0.9 <n>", "connect peer: 10.188.1.1 4000", ">>> Client",
		"recv from: 10.188.1.1 4000", "<<< Server", "Shutdown client")
	server.ends(t, "listen sock: 10.188.1.1 4000", "recv from: 10.208.0.9 <n>", "<<< Client", ">>> Server",
		"Shutdown server")
	rule.interrupt(t,
		anchorLine, "pass out log inet proto udp from 10.208.0.9 to 10.188.1.1 port 4000 divert-reply label regress",
		loadedLine, "nftables: the rule matched 1 packet, its action served 1, 1 came back")
}

func TestHandDivertPacket(t *testing.T) {
	l := hosts(t)
	rule := start(t, l, lab.Remote, "pf-setup -action divert-packet -proto udp -from 10.188.1.1 -to 10.188.1.2 -port 4000 -divert-port 666")
	rule.says(t, "loaded")
	packet := start(t, l, lab.Remote, "packet 666")
	packet.says(t, "divert sock")
	server := start(t, l, lab.Remote, "server -proto udp -bind 10.188.1.2:4000")
	server.says(t, "listen sock")
	client := start(t, l, lab.Local, "client -proto udp -bind 10.188.1.1 10.188.1.2:4000")
	client.ends(t, "connect sock: 10.188.1.1 <n>", "connect peer: 10.188.1.2 4000", ">>> Client", "Shutdown client")
	packet.ends(t, "divert sock: 0.0.0.0 666",
		"<<< 45<x>0a", ">>> 45<x>0a", "Shutdown packet") // both packets whole, in hexadecimal
	server.ends(t, "listen sock: 10.188.1.2 4000", "recv from: 10.188.1.1 <n>", "<<< Packet", "Shutdown server")
	rule.interrupt(t,
		anchorLine, "pass in log inet proto udp from 10.188.1.1 to 10.188.1.2 port 4000 divert-packet port 666 label regress",
		loadedLine, "nftables: the rule matched 1 packet, its action served 1")
}
