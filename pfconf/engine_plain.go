//go:build !bpf

package pfconf

// BuiltBPF: this build has not the engines BPF and BPFLookup, nor what only they call.
const BuiltBPF = false
