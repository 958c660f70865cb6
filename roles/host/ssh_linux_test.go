package host_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"pfdivert/roles/agent"
	"pfdivert/roles/host"
)

// reached is a Remote with its agent's first line read.
type reached struct {
	*host.Remote
	lines *bufio.Scanner
	pid   int
	euid  int
	exe   string
}

func reach(ctx context.Context, o host.SSHOptions) (*reached, error) {
	if o.Args == nil {
		o.Args = []string{"copied"}
	}
	r, err := host.SSH(ctx, o)
	if err != nil {
		return nil, err
	}
	h := &reached{Remote: r, lines: bufio.NewScanner(r.Read)}
	magic := make([]byte, len(agent.Magic))
	if _, err := io.ReadFull(r.Read, magic); err != nil || string(magic) != agent.Magic {
		return nil, fmt.Errorf("first word %q, %v", magic, err)
	}
	h.lines.Scan()
	_, err = fmt.Sscan(h.lines.Text(), &h.pid, &h.euid, &h.exe)
	return h, err
}

func (s *sshd) mustReach(t testing.TB, o host.SSHOptions) *reached {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	o.Options = s.options + " " + o.Options
	r, err := reach(ctx, o)
	if err != nil {
		t.Fatal(full(err))
	}
	return r
}

func full(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return fmt.Sprintf("error: %v\nhint: %s", err, h.Hint())
	}
	return fmt.Sprintf("error without a hint: %v", err)
}

func (r *reached) mustClose(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Error(full(err))
	}
	if said := r.Stderr(); said != "" {
		t.Errorf("stderr: %q", said)
	}
	if err := r.Wait(ctx); err != nil {
		t.Error(err)
	}
}

func answer(secrets ...string) host.Ask {
	return func(string) (string, error) {
		if len(secrets) == 0 {
			return "", errors.New("asked once more")
		}
		s := secrets[0]
		secrets = secrets[1:]
		return s, nil
	}
}

// An agent runs as root on a host, whoever logs in there by whichever shell.
func TestSSH(t *testing.T) {
	s := startSSHD(t, world{})
	for _, c := range []struct {
		user, sudo string
		ask        host.Ask
	}{
		{user: "root"},
		{user: "root", sudo: "sudo"},
		{user: "bash", sudo: "sudo"},
		{user: "csh", sudo: "sudo -u root"},
		{user: "fish", sudo: "sudo"},
		{user: "asked", sudo: "sudo", ask: answer(secret)},
		{user: "doas", sudo: "doas"},
	} {
		t.Run(c.user+c.sudo, func(t *testing.T) {
			r := s.mustReach(t, host.SSHOptions{Destination: c.user + "@127.0.0.1", Sudo: c.sudo, Ask: c.ask})
			if r.euid != 0 {
				t.Errorf("the agent runs as %d", r.euid)
			}
			if r.User != c.user || r.GOOS != "linux" || len(r.Want) != 64 || r.Sent == 0 || r.Cached {
				t.Errorf("%+v", r.Remote)
			}
			for _, line := range []string{"hello", "\x03\x04\x1a~.", "", strings.Repeat("x", 60000)} {
				fmt.Fprintln(r.Write, line)
				if !r.lines.Scan() || r.lines.Text() != line {
					t.Errorf("%.20q came back as %.20q", line, r.lines.Text())
				}
			}
			r.mustClose(t)
			gone(t, r.pid)
			s.clean(t)
		})
	}
}
