// Package pf drives OpenBSD's packet filter through pfctl(8). The structures of
// pf's ioctls change between releases; pfctl always matches its kernel, so
// everything here is a command line, what is written to it and what it prints.
//
// What is relied on, and where it comes from ("seen" is a transcript of
// OpenBSD 7.7-current, an excerpt of which is in testdata):
//
//   - `pfctl -a ANCHOR -f -` replaces the rules of one anchor atomically: a
//     reader sees the old rules until the new ones are committed, and a load that
//     fails changes nothing (seen; DIOCXCOMMIT in pf(4)). Sub-anchors stay.
//   - A rule that is loaded again begins with counters of zero (pf.conf(5) has
//     no way to keep them).
//   - With -v, pfctl prints each rule as it was understood (pfctl(8), seen).
//   - Two loads of one anchor at the same time: one fails with
//     "DIOCADDRULE: Device busy" (seen), the one that began first (pf_begin_rules
//     in pf_ioctl.c gives out a new ticket). Loads of other anchors do no harm.
//   - Bad rules: "stdin:1: …" and "pfctl: Syntax error in config file: pf rules
//     not loaded", exit status 1 (seen).
//   - Not every failure shows in the exit status: `pfctl -a nosuch -s rules`
//     says "pfctl: Anchor does not exist" on stderr and exits 0 (seen). So
//     whatever is not known to be harmless on stderr is an error.
//   - `pfctl -a ANCHOR -s labels` prints a line for each rule with a label: the
//     label, evaluations, packets, bytes, packets in, bytes in, packets out,
//     bytes out, states created (pfctl(8), seen).
//   - divert-packet rules count no packets there, only states (seen).
//   - What `pfctl -s rules` prints can be loaded again and prints the same; the
//     kernel's own regress suite holds pfctl to that (regress/sbin/pfctl, selfpf).
//     What it prints does not have the contents of tables. With -n -v, pfctl
//     prints what it would load and loads nothing (pfctl(8), seen).
//   - `pfctl -k label -k LABEL` removes the states that rules with the label
//     created, whether the rules are still loaded or not, and prints "killed N
//     states" on stderr (pfctl(8), seen). It acts on the routing domain given with
//     -V, 0 otherwise (seen).
//   - `pfctl -k id -k ID/CREATOR` removes one state by what `pfctl -ss -vv` calls
//     it (pfctl(8), seen). `-k key` is not used: it does not take protocol 254
//     ("invalid protocol: 254", seen), and `-k HOST -k HOST` would take the
//     states of other flows with it.
//   - `pfctl -ss` has the filtering host's side on the left and "<-" when the
//     other side began (pf_print_state.c, seen).
package pf
