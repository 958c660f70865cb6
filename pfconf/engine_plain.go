//go:build !bpf

package pfconf

const builtBPF = false
