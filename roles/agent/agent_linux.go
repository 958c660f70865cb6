package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
	"pfdivert/pfconf/nft"
	"pfdivert/roles/gather"
	"pfdivert/roles/lab/namespace"
	"pfdivert/roles/socket"
)

// WarmUp begins, in the background, to find out what OpenFilter needs to know. Call it on a host
// that will be REMOTE.
func WarmUp() { nft.WarmUp() }

// OpenFilter opens nf_tables for the cells.
func OpenFilter(ctx context.Context, s *script.Setup, opt Options) (pfconf.Firewall, error) {
	nic := opt.Interface
	if nic == "" {
		var err error
		if nic, err = interfaceTowards(s.Paths); err != nil {
			return nil, err
		}
	}
	c := nft.Config{Interface: nic, Fakes: s.Fakes, Engine: s.Filter, Journal: opt.Journal, Omit: pieces(s)}
	fw, err := nft.Open(ctx, c)
	if err != nil {
		return nil, explainNFT(err)
	}
	return fw, nil
}

// pieces are those that the packet filter is to leave out.
func pieces(s *script.Setup) []nft.Piece {
	var some []nft.Piece
	for _, o := range s.Omit {
		some = append(some, nft.Piece(o))
	}
	return some
}

// OpenInspector opens this host's nf_tables and conntrack for pf-setup.
func OpenInspector() (pfconf.Inspector, error) {
	d, err := nft.OpenInspector()
	if err != nil {
		return nil, explainNFT(err)
	}
	return d, nil
}

func natlook(q pfconf.NATQuery) (pfconf.NATAnswer, error) {
	answer, err := nft.Natlook(q)
	return answer, explainNFT(err)
}

// ownStates returns LOCAL's state table. A conntrack entry of LOCAL's own is no rule's: it
// lets a new connection with the same addresses and ports pass (nf_conntrack_tcp_packet, "reopen").
func ownStates(context.Context, Options) (pfconf.StateTable, error) { return pfconf.Stateless{}, nil }

// routing returns what the packet filter's diverted packets are routed by: FAKE is local without a
// mark for the rules of pfconf.BPFLookup.
func routing(o *gather.Options, e pfconf.Engine) {
	o.Own = nft.TableName
	if e != pfconf.BPFLookup {
		o.Mark, o.Table = nft.Mark, nft.Table
	}
}

// bootID names the time from one boot to the next (random(4)).
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("which boot this is: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func sameBoot(a, b string) bool { return a == b }

// netID names the network namespace, "net:[4026531840]" (namespaces(7)): containers and namespaces
// made by ip-netns(8) share /var/run. The number may come again when the namespace is gone.
func netID() string {
	s, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return "" // no namespaces in this kernel
	}
	return s
}

// netSuffix makes a file's name that of one network namespace.
func netSuffix() string {
	return "-" + strings.Trim(netID(), "net:[]")
}

// startUnprivileged starts the process without any capability, of this user namespace or another.
// The bounding set decides what root gets by execve(2), which looks at this program's file before:
// a user without privilege may not enter the folder into which ssh copied it. Another user id would
// not do: in a lab that an unprivileged user started there is only one.
func startUnprivileged(cmd *exec.Cmd) error {
	begun := make(chan error)
	namespace.OwnThread(func() {
		for capability := uintptr(0); ; capability++ {
			err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
			if err == unix.EINVAL { // the kernel knows no more
				break
			}
			if err != nil {
				begun <- fmt.Errorf("drop capability %d: %w", capability, err)
				return
			}
		}
		begun <- socket.Start(cmd)
	})
	return <-begun
}

// DropPrivilege does nothing: startUnprivileged started the process without any.
func DropPrivilege() error { return nil }

// ownFilter is for FreeBSD, whose ipfw drops by default what the raw IPv6 cells send.
func (*checks) ownFilter(context.Context, *script.Setup) {}

// EnterDomain returns an error unless n is 0: only OpenBSD has routing domains.
func EnterDomain(n int) (int, error) {
	if n <= 0 {
		return 0, nil
	}
	return 0, hinted{errors.New(runtime.GOOS + " has no routing domains"), "leave out -rdomain"}
}

// domain has nothing to look at.
func (c *checks) domain(context.Context, *script.Setup, int) {}
