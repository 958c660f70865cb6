// Package ipfw drives FreeBSD's ipfw through ipfw(8), whose structures change
// between releases as pf's do.
//
// ipfw has no divert-to and divert-reply. Their parts are run by fwd, whose
// destination may be an address of the host itself, with a port or without; see Text.
// Its static rules keep no states.
//
// What is relied on, and where it comes from ("seen" is a transcript of FreeBSD
// 12.1, an excerpt of which is in testdata):
//
//   - A rule belongs to one of 32 sets; the rules of a disabled set are not
//     evaluated; `set disable A enable B` is one step (ipfw(8), seen; enable_sets in
//     ip_fw_sockopt.c). So a whole set is loaded into a disabled one, which then
//     changes places with the one in force.
//   - `delete set N` removes the rules of set N and no others (ipfw(8), seen).
//   - Many rules may have one number; they are evaluated in the order in which
//     they were added (ipfw(8), seen).
//   - A diverted packet that is written back goes on behind all rules of the number of
//     the rule that diverted it (divert(4), seen).
//   - `ipfw FILE` reads a line for each command and ends with the first that fails:
//     "Line 3: getsockopt(IP_FW_XADD): Invalid argument" (ipfw_readfile in main.c, seen).
//   - `add` prints the rule as it was understood: a port of 70000 becomes 4464 without a
//     word (seen). Releases before 12 print "dst-port" before a port.
//   - `ipfw -S show` prints a line for each rule: its number, packets, bytes, "set N", and the
//     rule, with "# DISABLED " before it if its set is disabled (show_static_rule in
//     ipfw2.c, seen).
//   - IPv6 packets of protocols that ipfw does not know, 254 among them, are dropped, and refused
//     with EACCES when they leave, unless net.inet6.ip6.fw.deny_unknown_exthdrs is 0 (seen).
package ipfw
