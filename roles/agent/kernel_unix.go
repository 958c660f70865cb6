package agent

import "golang.org/x/sys/unix"

// kernel returns uname's name with its release, and its version.
func kernel() (release, system string) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown (" + err.Error() + ")", "unknown"
	}
	text := func(b []byte) string { return unix.ByteSliceToString(b) }
	return text(u.Sysname[:]) + " " + text(u.Release[:]), text(u.Version[:])
}
