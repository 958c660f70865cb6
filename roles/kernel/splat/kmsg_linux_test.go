package splat

import "testing"

func TestKernelText(t *testing.T) {
	for record, want := range map[string]string{
		"4,339,5140900,-;WARNING: CPU: 0\n SUBSYSTEM=pci\n": "WARNING: CPU: 0",
		"6,1,2,-,caller=T1;a;b\n":                           "a;b",
		"12,340,5140901,-;BUG: a program's\n":               "", // LOG_USER
		"x":                                                 "",
	} {
		if got, ok := kernelText(record); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", record, got, ok)
		}
	}
}
