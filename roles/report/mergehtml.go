package report

import "io"

// writeHTML writes the fleet as a page.
func (f *Fleet) writeHTML(w io.Writer) error {
	return WriteHTML(w, f.run(), summariesOf(f.hosts))
}
