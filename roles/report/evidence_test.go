package report

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/matrix/evidence"
	"pfdivert/roles/lab/labtest"
)

// evidenceResults are results with evidence: one whose packet was lost, one that passed.
func evidenceResults() map[string]matrix.Result {
	all := map[string]matrix.Result{}
	_, summaries := withEvidence()
	for _, o := range summaries {
		if o.Evidence != nil {
			all[o.Name] = o.Result
		}
	}
	return all
}

func TestWriteEvidence(t *testing.T) {
	results := evidenceResults()
	if len(results) != 2 {
		t.Fatalf("%d results have evidence", len(results))
	}
	for name, r := range results {
		var b bytes.Buffer
		if err := WriteEvidence(&b, r); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".evidence.txt", b.Bytes())
	}
	// What a host says can't write lines or signs of its own.
	var b bytes.Buffer
	hostile := matrix.Result{Name: "x", Evidence: &matrix.Evidence{Remote: evidence.Record{
		Answers: []evidence.Answer{{Command: "\x1b[2Jip", Text: "a\r\x07"}}, Errors: []string{"\x9b31m"},
	}}}
	if err := WriteEvidence(&b, hostile); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\r\x07") || bytes.Contains(b.Bytes(), []byte{0x9b}) {
		t.Errorf("%q", b.String())
	}
}

// TestWritePcapng has tshark read the files, and find no packet that another is a copy of.
func TestWritePcapng(t *testing.T) {
	const name = "inet-args-udp-to"
	for host, want := range map[string]string{
		"local":  "local\tveth0\t0x00000002\t0.000000000\t10.192.0.2\t27514\t49\n",
		"remote": "remote\tveth1\t0x00000001\t0.000000000\t10.192.0.2\t27514\t49\n",
	} {
		var b bytes.Buffer
		if err := WritePcapng(&b, evidenceResults()[name], host); err != nil {
			t.Fatal(err)
		}
		golden(t, name+"."+host+".pcapng", b.Bytes())
		file := filepath.Join(t.TempDir(), host+".pcapng")
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(labtest.Program(t, "tshark"), "-r", file, "-T", "fields", "-E", "separator=/t",
			"-e", "frame.interface_name", "-e", "frame.interface_description", "-e", "frame.packet_flags_direction",
			"-e", "frame.time_relative", "-e", "ip.src", "-e", "udp.dstport", "-e", "frame.len")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, stderr.String())
		}
		if !strings.HasPrefix(string(out), want) || strings.Count(string(out), "\n") != 2 {
			t.Errorf("%s: tshark read\n%s", host, out)
		}
		// The comment says what happened to the target.
		if !bytes.Contains(b.Bytes(), []byte(name+": FAIL (not-delivered): remote server: nothing arrived")) {
			t.Error("the file's comment does not tell the verdict")
		}
	}
}

// TestWritePcapngEmpty: a file without packets is one still.
func TestWritePcapngEmpty(t *testing.T) {
	var b bytes.Buffer
	if err := WritePcapng(&b, matrix.Result{Name: "x", Verdict: matrix.Error}, "local"); err != nil {
		t.Fatal(err)
	}
	if b.Len()%4 != 0 || !bytes.HasPrefix(b.Bytes(), []byte("\x0a\x0d\x0d\x0a")) {
		t.Errorf("%q", b.Bytes())
	}
}
