package roles

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"pfdivert/matrix"
	"pfdivert/roles/report"
	"pfdivert/roles/terminal"
)

// sonobuoy is the reader that collects results from the nodes of a Kubernetes cluster. Its worker
// is another container of this program's pod and shares a folder with it. The worker waits for
// the file "done" there, whose text is the path of what to send; it sends a folder as an archive
// (GatherResults, pkg/worker/worker.go). Every file *.xml in that is read as JUnit
// (PostProcessPlugin, pkg/client/results/processing.go).
const sonobuoy = "sonobuoy"

// sonobuoyFolders returns the folder that the worker looks at, and what it is to send.
func sonobuoyFolders(getenv func(string) string) (worker, results string) {
	worker = cmp.Or(getenv("SONOBUOY_RESULTS_DIR"), "/tmp/sonobuoy/results")
	return worker, filepath.Join(worker, "pfdivert")
}

// forSonobuoy has the run keep its results where the worker finds them. What an earlier run of this
// pod left, whose container was killed, is removed first.
func (o *runFlags) forSonobuoy(getenv func(string) string) error {
	worker, folder := sonobuoyFolders(getenv)
	err := errors.Join(os.RemoveAll(filepath.Join(worker, "done")), os.RemoveAll(folder), os.MkdirAll(folder, 0o755))
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	for i, format := range report.Formats {
		switch format.Flag {
		case "json":
			o.reports[i] = cmp.Or(o.reports[i], filepath.Join(folder, "results.json"))
		case "junit":
			o.reports[i] = cmp.Or(o.reports[i], filepath.Join(folder, "junit.xml"))
		}
	}
	o.out = cmp.Or(o.out, folder)
	return nil
}

// submit has the worker send the results, also of a run that failed with err, and waits for a
// signal: Kubernetes starts a container of a DaemonSet again when it ends.
//
// A run that could not start has no JUnit, and a node whose targets are all skipped counts as
// passed. So both are an error in a file of their own.
func (c *call) submit(ctx context.Context, status int, err error) (int, error) {
	worker, folder := sonobuoyFolders(c.Getenv)
	why := err
	if as, _ := readerOf(sonobuoy); err == nil && status == as.untold {
		why = errors.New("nothing is told of this kernel: all targets, or one that was named, are SKIP")
	}
	if why != nil {
		terminal.PrintError(c.Err, why)
		status = max(status, exitError)
	}
	err = os.MkdirAll(folder, 0o755)
	if err == nil && why != nil {
		err = writeTo(filepath.Join(folder, "error.xml"), func(w io.Writer) error {
			return report.WriteJUnit(w, report.Run{Version: c.version, Started: time.Now()}, []report.Summary{{
				Result: matrix.Result{Name: "run-start", Verdict: matrix.Error, Reason: matrix.SetupFailed,
					Detail: why.Error()}}})
		})
	}
	// Last, and at once: the worker may look at any time.
	done := filepath.Join(worker, "done")
	err = errors.Join(err, writeTo(done+".new", func(w io.Writer) error {
		_, err := io.WriteString(w, folder)
		return err
	}))
	if err = errors.Join(err, os.Rename(done+".new", done)); err != nil {
		return exitError, terminal.WithHint(fmt.Errorf("results: %w", err),
			"SONOBUOY_RESULTS_DIR must be a folder that this user may write to, such as an emptyDir")
	}
	if ctx.Err() == nil {
		fmt.Fprintf(c.Err, "The results are in %s; this program waits for a signal to end.\n", folder)
		<-ctx.Done()
	}
	return status, nil
}

// writeTo writes a file.
func writeTo(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
