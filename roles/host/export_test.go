package host

// SetExecutable has this file sent in place of the test program, which takes
// the race detector long to compress.
func SetExecutable(path string) {
	executable = func() (string, error) { return path, nil }
}
