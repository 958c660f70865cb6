package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pfdivert/matrix/script"
	"pfdivert/roles/socket"
)

// TestUnstarted: that an endpoint's process could not be started is no refusal by the kernel
// of what the endpoint asks for, whatever the system's code for it is.
func TestUnstarted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	silent := filepath.Join(t.TempDir(), "silent")
	if err := os.WriteFile(silent, []byte("#!/bin/sh\nexit 0\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, silent} { // EACCES, and an end without a hello
		e := &traced{cmd: exec.Command(name)}
		_, err := e.start(t.Context(), socket.Start, script.Open{Socket: "nobody", Spec: script.Datagram{}})
		if err == nil {
			t.Fatalf("%s was started", name)
		}
		if f := ErrorOf(err); f.Code != script.CodeOther {
			t.Errorf("%s: code %s: %s", name, f.Code, f.Text)
		}
		if e.conn != nil {
			t.Errorf("%s: there is a connection", name)
		}
	}
}
