//go:build !linux

package endpoint

// Only Linux keeps a socket's ICMP errors; elsewhere they show as the error of
// a later call, if at all.
func askErrors(int, int) bool { return false }

func readErrors(int) []string { return nil }
