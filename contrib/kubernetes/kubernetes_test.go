package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vmware-tanzu/sonobuoy/pkg/client/results"
	"github.com/vmware-tanzu/sonobuoy/pkg/plugin"
	"github.com/vmware-tanzu/sonobuoy/pkg/plugin/aggregation"
	"github.com/vmware-tanzu/sonobuoy/pkg/plugin/driver/daemonset"
	"github.com/vmware-tanzu/sonobuoy/pkg/plugin/loader"
	"github.com/vmware-tanzu/sonobuoy/pkg/plugin/manifest"
	"github.com/vmware-tanzu/sonobuoy/pkg/worker"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// strict decodes a manifest by the types of Kubernetes and refuses fields that they lack.
func strict(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err == nil {
		err = yaml.UnmarshalStrict(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// pods returns the pods of the manifests. The plugin's is put together as Sonobuoy does it.
func pods(t *testing.T) map[string]corev1.PodSpec {
	t.Helper()
	var job batchv1.Job
	strict(t, "job.yaml", &job)
	var set appsv1.DaemonSet
	strict(t, "daemonset.yaml", &set)
	p := definition(t)
	sent := p.PodSpec.PodSpec
	sent.Containers = append(sent.Containers, p.Spec.Container)
	sent.Volumes = append(sent.Volumes, corev1.Volume{Name: "results",
		VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	return map[string]corev1.PodSpec{"job": job.Spec.Template.Spec, "daemonset": set.Spec.Template.Spec, "plugin": sent}
}

func definition(t *testing.T) manifest.Manifest {
	t.Helper()
	var m manifest.Manifest
	strict(t, "plugin.yaml", &m)
	text, err := os.ReadFile("plugin.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// By Sonobuoy's own loader too, as 'sonobuoy run --plugin' does it.
	if m, err = loader.LoadDefinition(text); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestManifests: the types of Kubernetes know each field, and the three pods have the same rights
// and nothing of the node.
func TestManifests(t *testing.T) {
	all := pods(t)
	want, _ := json.Marshal(all["job"].Containers[0].SecurityContext)
	for name, pod := range all {
		if len(pod.Containers) != 1 {
			t.Fatalf("%s: %d containers", name, len(pod.Containers))
		}
		got, _ := json.Marshal(pod.Containers[0].SecurityContext)
		if string(got) != string(want) {
			t.Errorf("%s has the rights\n%s, the Job has\n%s", name, got, want)
		}
		if pod.HostNetwork || pod.HostPID || pod.HostIPC || pod.HostUsers == nil || *pod.HostUsers ||
			pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
			t.Errorf("%s is given what is the node's", name)
		}
		volumes := map[string]bool{}
		for _, v := range pod.Volumes {
			volumes[v.Name] = v.EmptyDir != nil
		}
		for _, m := range pod.Containers[0].VolumeMounts {
			if !volumes[m.Name] || m.MountPath != plugin.ResultsDir {
				t.Errorf("%s mounts %s at %s, want an emptyDir at %s", name, m.Name, m.MountPath, plugin.ResultsDir)
			}
		}
	}
}

// folder returns a new folder that is gone after the test.
func folder(t *testing.T) string {
	dir := t.TempDir()
	// Root of a pod's user namespace is another user outside.
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// image writes an image of the binary that make image built, and returns its folder.
func image(t *testing.T, architectures ...string) string {
	t.Helper()
	dist := folder(t)
	binary, err := os.ReadFile("../../dist/pfdivert-linux-" + runtime.GOARCH)
	if err != nil {
		t.Fatalf("%v; build it first: make image", err)
	}
	for _, a := range architectures {
		if err := os.WriteFile(filepath.Join(dist, "pfdivert-linux-"+a), append(binary, a...), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(dist, "image")
	if err := write(dist, dir, architectures); err != nil {
		t.Fatal(err)
	}
	return dir
}

// unpack returns a folder with the files of the image for this machine, and its command.
func unpack(t *testing.T, dir string) (root string, command []string) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	root = folder(t)
	for _, m := range all.Manifests {
		if m.Platform.Architecture != runtime.GOARCH {
			continue
		}
		one, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := one.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		layers, err := one.Layers()
		if err != nil || len(layers) != 1 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		files, err := layers[0].Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		for r := tar.NewReader(files); ; {
			h, err := r.Next()
			if err == io.EOF {
				return root, config.Config.Entrypoint
			}
			text, readErr := io.ReadAll(r)
			if err = errors.Join(err, readErr); err == nil {
				err = os.WriteFile(filepath.Join(root, h.Name), text, h.FileInfo().Mode())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Fatalf("the image has nothing for %s", runtime.GOARCH)
	return "", nil
}

// TestImage: the image is sound, has the binary alone, and is the same each time.
func TestImage(t *testing.T) {
	architectures := []string{runtime.GOARCH, "other"}
	first, second := image(t, architectures...), image(t, architectures...)
	if out, err := exec.Command("diff", "-r", first, second).CombinedOutput(); err != nil {
		t.Errorf("two images of the same binary differ: %s", out)
	}
	index, err := layout.ImageIndexFromPath(first)
	if err == nil {
		err = validate.Index(index)
	}
	if err != nil {
		t.Error(err)
	}
	root, command := unpack(t, first)
	files, err := os.ReadDir(root)
	if err != nil || len(files) != 1 || strings.Join(command, " ") != "/"+files[0].Name() {
		t.Errorf("the image has %v and runs %v, %v", files, command, err)
	}
	out, err := exec.Command(filepath.Join(root, "pfdivert"), "version").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// container is a pod's container, run as containerd runs it, without Kubernetes.
type container struct {
	id       string
	cmd      *exec.Cmd
	out, err bytes.Buffer
	results  string // the emptyDir
}

var containerCount atomic.Int32

// start starts the container of a pod. results is the pod's emptyDir.
func start(t *testing.T, root string, entrypoint []string, pod corev1.PodSpec, results string) *container {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run containers")
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	c := pod.Containers[0]
	rights := c.SecurityContext
	var capabilities []string
	for _, name := range rights.Capabilities.Add {
		capabilities = append(capabilities, "CAP_"+string(name))
	}
	options := []oci.SpecOpts{
		oci.WithRootFSPath(root), oci.WithProcessArgs(append(entrypoint, c.Args...)...),
		oci.WithCapabilities(capabilities),
		seccomp.WithDefaultProfile(), // RuntimeDefault, which looks at the capabilities
	}
	if *rights.ReadOnlyRootFilesystem {
		options = append(options, oci.WithRootFSReadonly())
	}
	if !*pod.HostUsers {
		ids := []specs.LinuxIDMapping{{HostID: 1 << 20, Size: 1 << 16}}
		options = append(options, oci.WithUserNamespace(ids, ids))
		// containerd maps the ids of both; here they are those of the pod's root.
		if err := errors.Join(os.Chown(results, 1<<20, 1<<20), os.Chown(root, 1<<20, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range c.Env {
		options = append(options, oci.WithEnv([]string{e.Name + "=" + e.Value}))
	}
	for _, m := range c.VolumeMounts {
		options = append(options, oci.WithMounts([]specs.Mount{{Destination: m.MountPath, Type: "bind",
			Source: results, Options: []string{"rbind", "rw"}}}))
	}
	if rights.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault || len(rights.Capabilities.Drop) != 1 ||
		rights.Capabilities.Drop[0] != "ALL" || rights.Privileged != nil || rights.ProcMount != nil {
		t.Fatal("the manifest has what this test does not give to the container")
	}

	x := &container{id: fmt.Sprintf("pfdivert-test-%d-%d", os.Getpid(), containerCount.Add(1)), results: results}
	ctx := namespaces.WithNamespace(context.Background(), "test")
	spec, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: x.id}, options...)
	if err != nil {
		t.Fatal(err)
	}
	bundle := folder(t)
	text, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	x.cmd = exec.Command(runc, "run", "--bundle", bundle, x.id)
	x.cmd.Stdout, x.cmd.Stderr = &x.out, &x.err
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command(runc, "delete", "--force", x.id).Run() // there is none when it ended
		_ = x.cmd.Wait()
	})
	return x
}

// wait returns the container's exit status.
func (x *container) wait() int {
	_ = x.cmd.Wait() // what counts is the status
	return x.cmd.ProcessState.ExitCode()
}

// report is what the JSON of a run is read for.
type report struct {
	Targets []struct{ Name, Verdict, Detail string }
}

// good reads a run's JSON and reports whether something passed and nothing failed.
func good(t *testing.T, text []byte) bool {
	t.Helper()
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Errorf("no JSON: %v in %q", err, text)
		return false
	}
	count := map[string]int{}
	for _, target := range r.Targets {
		count[target.Verdict]++
	}
	t.Log(count)
	return count["PASS"] > 0 && count["FAIL"]+count["ERROR"]+count["XPASS"] == 0
}

// TestRights: with the rights of the manifests all runs, and each of them is needed.
func TestRights(t *testing.T) {
	root, entrypoint := unpack(t, image(t, runtime.GOARCH))
	pod := pods(t)["job"]
	all := start(t, root, entrypoint, pod, folder(t))
	if status := all.wait(); status != 0 || !good(t, all.out.Bytes()) {
		t.Errorf("exit status %d: %s", status, all.err.String())
	}
	for i, name := range pod.Containers[0].SecurityContext.Capabilities.Add {
		t.Run(string(name), func(t *testing.T) {
			less := *pod.DeepCopy()
			c := less.Containers[0].SecurityContext.Capabilities
			c.Add = append(c.Add[:i:i], c.Add[i+1:]...)
			x := start(t, root, entrypoint, less, folder(t))
			if status := x.wait(); status != 2 || !strings.HasPrefix(x.err.String(), "error: ") {
				t.Errorf("without %s: exit status %d: %s%s", name, status, x.out.String(), x.err.String())
			}
		})
	}
	t.Run("hostUsers", func(t *testing.T) { // for clusters without user namespaces
		older := *pod.DeepCopy()
		*older.HostUsers = true
		x := start(t, root, entrypoint, older, folder(t))
		if status := x.wait(); status != 0 || !good(t, x.out.Bytes()) {
			t.Errorf("exit status %d: %s", status, x.err.String())
		}
	})
}

// TestDaemonSet: a pod prints its results as one line, and stays until it is ended.
func TestDaemonSet(t *testing.T) {
	root, entrypoint := unpack(t, image(t, runtime.GOARCH))
	shared := folder(t)
	x := start(t, root, entrypoint, pods(t)["daemonset"], shared)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(shared, "done"))
		if err == nil && string(text) == plugin.ResultsDir+"/pfdivert" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no results: %v, %q", err, text)
		}
	}
	if out, err := exec.Command("runc", "kill", x.id, "TERM").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if status := x.wait(); status != 0 || !good(t, x.out.Bytes()) {
		t.Errorf("exit status %d: %s", status, x.err.String())
	}
}

// TestPlugin runs the plugin beside Sonobuoy's worker, which sends what it finds to Sonobuoy's
// aggregator. Then Sonobuoy reads the results of the node.
func TestPlugin(t *testing.T) {
	root, entrypoint := unpack(t, image(t, runtime.GOARCH))
	pod := pods(t)["plugin"]
	weak := *pod.DeepCopy()
	weak.Containers[0].SecurityContext.Capabilities.Add = weak.Containers[0].SecurityContext.Capabilities.Add[:1]
	unknown := *pod.DeepCopy()
	unknown.Containers[0].Args = append(unknown.Containers[0].Args, "no-such-target")
	for _, c := range []struct {
		name   string
		pod    corev1.PodSpec
		killed bool // the container is killed in the middle and Kubernetes starts it again
		status string
		item   string // an item of the result, with its status
	}{
		{"runs", pod, false, results.StatusPassed, "inet-args-tcp-to passed"},
		{"killed", pod, true, results.StatusPassed, "inet-args-tcp-to passed"},
		{"cannot start", weak, false, results.StatusFailed, "run-start failed"},
		{"wrong arguments", unknown, false, results.StatusFailed, "run-start failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			shared, out := folder(t), folder(t)
			// The worker, which is no container here, must find it by the same name.
			pod := *c.pod.DeepCopy()
			pod.Containers[0].VolumeMounts[0].MountPath = shared
			pod.Containers[0].Env = []corev1.EnvVar{{Name: "SONOBUOY_RESULTS_DIR", Value: shared}}
			d := daemonset.NewPlugin(definition(t), "sonobuoy", "sonobuoy", "Never", "", nil)
			a := aggregation.NewAggregator(filepath.Join(out, results.PluginsDir),
				[]plugin.ExpectedResult{{NodeName: "node1", ResultType: "pfdivert"}})
			server := httptest.NewServer(aggregation.NewHandler(a.HandleHTTPResult, a.HandleHTTPProgressUpdate))
			defer server.Close()
			url, err := aggregation.NodeResultURL(server.URL, "node1", "pfdivert")
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			stop := make(chan struct{})
			go func() { sent <- worker.GatherResults(filepath.Join(shared, "done"), url, server.Client(), stop) }()

			x := start(t, root, entrypoint, pod, shared)
			if c.killed {
				for x.err.Len() == 0 {
					if _, err := os.Stat(filepath.Join(shared, "pfdivert", "results.json")); err == nil {
						break // it has begun
					}
					time.Sleep(time.Millisecond)
				}
				if text, err := exec.Command("runc", "kill", x.id, "KILL").CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, text)
				}
				if status := x.wait(); status != 137 {
					t.Fatalf("exit status %d of a container that was killed", status)
				}
				if _, err := os.Stat(filepath.Join(shared, "done")); err == nil {
					t.Fatal("done is there before the run has ended")
				}
				x = start(t, root, entrypoint, pod, shared)
			}
			ended := make(chan int, 1)
			go func() { ended <- x.wait() }()
			select {
			case err := <-sent:
				if err != nil {
					t.Fatal(err)
				}
			case status := <-ended:
				t.Fatalf("the container ended with %d, and would be started again: %s", status, x.err.String())
			case <-time.After(time.Minute):
				close(stop)
				t.Fatalf("no results came: %s", x.err.String())
			}
			if text, err := exec.Command("runc", "kill", x.id, "TERM").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, text)
			}
			<-ended

			item, errs := results.PostProcessPlugin(d, out)
			if len(errs) > 0 {
				t.Error(errs)
			}
			found := false
			_ = item.Walk(func(i *results.Item) error {
				found = found || i.Name+" "+i.Status == c.item
				return nil
			})
			if item.Status != c.status || !found {
				text, _ := yaml.Marshal(item)
				t.Errorf("Sonobuoy says %s, want %s and %s:\n%s%s", item.Status, c.status, c.item, text, x.err.String())
			}
		})
	}
}
