package matrix

import (
	"context"
	"strings"

	"pfdivert/matrix/script"
	"pfdivert/pfconf"
)

// read: "Packets can be read via read(2), recv(2), or recvfrom(2) from the divert socket." (OpenBSD
// divert(4); FreeBSD's: "may be read unaltered via read(2), recv(2), or recvfrom(2)")
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends, and the divert socket takes the packet by read(2). It is the packet that
//     was sent. It is not reinjected, and does not arrive.
//  3. The same by recv(2). On OpenBSD that is left out: programs call libc's there, and a Go
//     program can't; the kernel has one system call for recv(2) and recvfrom(2).
//  4. What the client sends at last is taken by recvfrom(2), reinjected rewritten, and arrives.
//  5. The rule has counted all.
func (x *claimRun) read(ctx context.Context) error {
	if err := x.begin(ctx, false); err != nil {
		return err
	}
	calls := []script.Call{script.Read}
	if x.kernel.Firewall == "ipfw" {
		calls = append(calls, script.Recv)
	}
	for _, call := range calls {
		x.divertSocket.Call = call
		if err := x.openDivert(ctx, "packet"); err != nil {
			return err
		}
		if err := x.sends(ctx); err != nil {
			return err
		}
		from, to := x.flowEnds()
		divert := x.remote.request()
		seen := divert.receive("packet")
		seen.may = refusedReads
		divert.close("packet")
		if err := divert.run(ctx); err != nil {
			return err
		}
		if seen.Err != nil && !lost[seen.Err.Code] {
			return failed(NotDelivered, "%s: the kernel refuses %s(2): %s", seen.where, call, seen.Err.Text)
		}
		if err := x.judge(seen, want{line: script.ClientLine, from: from, to: to, missing: NotDelivered}); err != nil {
			return err
		}
		if err := x.nothingArrives(ctx, "it was taken by "+string(call)+"(2) and not reinjected"); err != nil {
			return err
		}
	}
	x.divertSocket.Call = ""
	if err := x.openDivert(ctx, "packet"); err != nil {
		return err
	}
	if err := x.passes(ctx, "packet"); err != nil {
		return err
	}
	n := uint64(len(calls) + 1)
	return x.judgeMatched(ctx, n, n)
}

// refusedReads are the codes of a kernel that does not let a packet be read, and those that say
// that there is none.
var refusedReads = lostOr("EINVAL", "EOPNOTSUPP", "ENOTCONN", "EDESTADDRREQ", "ENXIO")

// interfaceName: "The interface name (if defined for the packet) will be placed in the 8 bytes
// following the address, if it fits." (FreeBSD divert(4))
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives.
//  2. The client sends. With the packet the divert socket gives the name of REMOTE's interface
//     towards LOCAL.
//  3. Reinjected rewritten, it arrives.
func (x *claimRun) interfaceName(ctx context.Context) error {
	const room = 7 // and a NUL
	name := x.nics[x.Family]
	switch {
	case name == "":
		return broken(QuestionFailed, "remote: it is not known which interface has %v", x.Remote)
	case len(name) > room:
		return skipped("REMOTE: the name of the interface %s does not fit, and how it is cut is not said", name)
	}
	if err := x.begin(ctx, true); err != nil {
		return err
	}
	seen, err := x.diverted(ctx)
	if err != nil {
		return err
	}
	if got := seen.Messages[0].Interface; got != name {
		return failed(WrongAddress, "%s: the packet came with the interface name %q, and it came in by %s", seen.where, got, name)
	}
	return x.reinjected(ctx)
}

// teed: "packets arriving on the divert socket by the ipfw(8) tee action are delivered as-is and
// packet fragments do not get reassembled in this case" (FreeBSD divert(4)).
//
//  1. Control: before the rule is there, what a client like the cell's sends arrives, and so does a
//     message as long as the cell's.
//  2. The client sends a message of 4,000 bytes, more than a network's frames hold. It comes to the
//     server as it was sent: the rule delivers a copy.
//  3. The divert socket has that in pieces, which together are the message.
//  4. The rule has counted each fragment.
//
// That those of a rule with divert are put together, the claim reassembled shows.
func (x *claimRun) teed(ctx context.Context) error {
	const size = 4000
	x.big, x.divertSocket.Fragments = true, true
	x.fragmented = x.kernel.MeetsFragments
	x.change = func(r *pfconf.Rule) { r.Tee = true }
	if err := x.begin(ctx, true, func(ctx context.Context) (pfconf.Flow,
		error) {
		return x.longControl(ctx, size)
	}); err != nil {
		return err
	}
	line := script.ClientLine
	if !x.omit[Whole] {
		line += strings.Repeat("A line that is cut\n", size)[:size-len(line)]
	}
	there := x.local.request()
	sent := there.send("client", line, 0)
	there.fence()
	if err := there.run(ctx); err != nil {
		return err
	}
	if err := unanswered(sent); err != nil {
		return err
	}
	if err := x.arrives(ctx, line, NotBypassed); err != nil {
		return err
	}
	at := x.remote.request()
	copied := at.rest("packet")
	if err := at.run(ctx); err != nil {
		return err
	}
	from, to := x.flowEnds()
	var together strings.Builder
	for _, m := range copied.Messages {
		if m.From != from || m.To != to {
			return failed(WrongAddress, "%s: a piece from %v to %v came, not from %v to %v", copied.where, m.From,
				m.To, from, to)
		}
		together.Write(m.Data)
	}
	switch n := len(copied.Messages); {
	case n == 0:
		return failed(NotDelivered, "%s: no copy came", copied.where)
	case together.String() != line:
		return failed(WrongData, "%s: %d pieces came with %d bytes, which are not the %d bytes of the message",
			copied.where, n, together.Len(), len(line))
	case n == 1:
		return failed(WrongData, "%s: the copy came in one piece", copied.where)
	}
	if err := unanswered(copied); err != nil {
		return err
	}
	return x.judgeMatched(ctx, 1, 1)
}
