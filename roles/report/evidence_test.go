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

// TestWritePcapng has tshark read the file.
func TestWritePcapng(t *testing.T) {
	const name = "inet-args-udp-to"
	var b bytes.Buffer
	if err := WritePcapng(&b, evidenceResults()[name]); err != nil {
		t.Fatal(err)
	}
	golden(t, name+".pcapng", b.Bytes())
	file := filepath.Join(t.TempDir(), "capture.pcapng")
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
	const want = `local	veth0	0x00000002	0.000000000	10.192.0.2	27514	49
remote	veth1	0x00000001	0.000015000	10.192.0.2	27514	49
`
	if !strings.HasPrefix(string(out), want) || strings.Count(string(out), "\n") != 4 {
		t.Errorf("tshark read\n%s", out)
	}
	// The comment says what happened to the target.
	if !bytes.Contains(b.Bytes(), []byte(name+": FAIL (not-delivered): remote server: nothing arrived")) {
		t.Error("the file's comment does not tell the verdict")
	}
}

// TestWritePcapngEmpty: a file without packets is one still.
func TestWritePcapngEmpty(t *testing.T) {
	var b bytes.Buffer
	if err := WritePcapng(&b, matrix.Result{Name: "x", Verdict: matrix.Error}); err != nil {
		t.Fatal(err)
	}
	if b.Len()%4 != 0 || !bytes.HasPrefix(b.Bytes(), []byte("\x0a\x0d\x0d\x0a")) {
		t.Errorf("%q", b.Bytes())
	}
}
