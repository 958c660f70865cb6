package report

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"pfdivert/matrix"
)

// WriteFolders writes the transcripts and the evidence into dir: TARGET/HOST-ENDPOINT; with several
// hosts under test the target's name begins with a folder for each.
func WriteFolders(dir string, results []matrix.Result) error {
	var errs []error
	for _, r := range results {
		folder := filepath.Join(dir, r.Name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("transcripts: %w", err)
		}
		for _, t := range r.Transcript {
			// The names are this program's own, but they came from another host.
			name := strings.Map(fileLetter, t.Host+"-"+t.Name)
			if !strings.Contains(name, ".") {
				name += ".log"
			}
			errs = append(errs, os.WriteFile(filepath.Join(folder, name), []byte(t.Text), 0o644))
		}
		errs = append(errs, os.WriteFile(filepath.Join(folder, "verdict"), []byte(r.String()+"\n"), 0o644))
		if r.Evidence != nil {
			errs = append(errs,
				writeFile(filepath.Join(folder, "evidence.txt"), r, WriteEvidence),
				writeFile(filepath.Join(folder, "capture.pcapng"), r, WritePcapng))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("transcripts: %w", err)
	}
	return nil
}

// writeFile writes a result's file.
func writeFile(name string, r matrix.Result, write func(io.Writer, matrix.Result) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f, r), f.Close())
}

func fileLetter(r rune) rune {
	if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' {
		return r
	}
	return '_'
}
