//go:build bpf

package pfconf

// BuiltBPF: this build has the engines BPF and BPFLookup. What only they call is not in others.
const BuiltBPF = true
