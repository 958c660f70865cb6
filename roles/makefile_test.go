package roles_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pfdivert/matrix"
	"pfdivert/roles/lab/labtest"
)

// stubGo stands for the go command: the "binary" that it builds prints how it
// was called, so that the Makefile is tested without building anything.
const stubGo = `#!/bin/sh
echo "go GOOS=$GOOS GOARCH=$GOARCH CGO_ENABLED=$CGO_ENABLED $1"
while [ $# -gt 0 ]; do
	if [ "$1" = -o ]; then out=$2; fi
	shift
done
if [ -z "$out" ]; then exit; fi
cat >"$out" <<'END'
#!/bin/sh
case $* in
"list -names") echo inet-args-tcp-to; exit;;
"list -names *-divert-* *-natlook-* *-redirect-* *-queue-* inet-to-* inet6-to-*") echo inet-divert-no-loop-in; exit;;
esac
for v in LOCAL_ADDR REMOTE_ADDR FAKE_ADDR LOCAL_ADDR6 REMOTE_ADDR6 FAKE_ADDR6 GATEWAY_ADDR MIRROR_ADDR6 \
	REMOTE_SSH SUDO KTRACE SSH_OPTIONS; do
	eval "echo \"$v=\$$v\""
done
echo "called with $*"
if [ "$LOCAL_ADDR" = fail ]; then exit 1; fi
END
chmod +x "$out"
`

// passedOn are the variables of the test's hosts, with values that quoting
// would have to survive.
var passedOn = []string{
	"LOCAL_ADDR=10.188.1.1", "REMOTE_ADDR=10.188.1.2", "FAKE_ADDR=10.188.2.0/24",
	"LOCAL_ADDR6=fd00:188:1::1", "REMOTE_ADDR6=fd00:188:1::2", "FAKE_ADDR6=fd00:188:2::9",
	"GATEWAY_ADDR=10.188.3.1", "MIRROR_ADDR6=fd00:188:4::1",
	"REMOTE_SSH=root@a root@b", "SUDO=sudo -n", "KTRACE=strace",
	`SSH_OPTIONS=-o ProxyCommand='nc "%h" %p' -o User=x\y;z`,
}

// makes are the make programs of this machine: on Linux GNU make and bmake, on
// the BSDs the system's own.
func makes(t *testing.T) []string {
	var found []string
	for _, name := range []string{"make", "gmake", "bmake"} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		}
	}
	if found == nil || os.Getenv("CI") == "true" {
		labtest.Programs(t, "make", "bmake")
	}
	return found
}

// TestMakefile runs the Makefile with each make that there is.
func TestMakefile(t *testing.T) {
	for _, program := range makes(t) {
		t.Run(filepath.Base(program), func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{
				"Makefile", "regress.mk", "docs/pfdivert.1", "contrib/completions/_pfdivert",
				"contrib/completions/pfdivert.bash", "contrib/completions/pfdivert.fish",
			} {
				text, err := os.ReadFile(filepath.Join("..", name))
				if err == nil {
					err = errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o777),
						os.WriteFile(filepath.Join(dir, name), text, 0o666))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			stub := filepath.Join(dir, "stub-go")
			if err := os.WriteFile(stub, []byte(stubGo), 0o777); err != nil {
				t.Fatal(err)
			}
			run := func(env []string, args ...string) (string, error) {
				cmd := exec.Command(program, args...)
				cmd.Dir = dir
				// Not what the make that started this test hands down.
				cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
					name, _, _ := strings.Cut(v, "=")
					return strings.Contains(name, "MAKE") || name == "MFLAGS"
				}), "GO="+stub, "GOOS=", "GOARCH=")
				cmd.Env = append(cmd.Env, env...)
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			expect := func(out string, err error, want ...string) {
				t.Helper()
				if err != nil {
					t.Errorf("%v:\n%s", err, out)
				}
				for _, line := range want {
					if !strings.Contains(out, line+"\n") {
						t.Errorf("no line %q in\n%s", line, out)
					}
				}
			}

			out, err := run(nil)
			expect(out, err, "building pfdivert (minutes the first time, seconds later)",
				"go GOOS= GOARCH= CGO_ENABLED=0 build")
			if _, err := os.Stat(filepath.Join(dir, "pfdivert")); err != nil {
				t.Errorf("make built nothing: %v", err)
			}

			want := append(slices.Clone(passedOn), "called with run")
			out, err = run(passedOn, "regress")
			expect(out, err, want...)
			if strings.ContainsAny(strings.Split(out, "LOCAL_ADDR")[0], "$;`") {
				t.Errorf("make shows the commands of a shell:\n%s", out)
			}
			out, err = run([]string{"LOCAL_ADDR=overridden"}, append([]string{"regress"}, passedOn...)...)
			expect(out, err, want...)
			if out, err := run(nil, "regress", "LOCAL_ADDR=fail"); err == nil {
				t.Errorf("make hides that the run failed:\n%s", out)
			}

			var all, called []string
			for _, target := range append(matrix.Targets(), matrix.Claims()...) {
				all = append(all, "run-"+target.Name)
				called = append(called, "called with run "+target.Name)
			}
			out, err = run(nil, all...)
			expect(out, err, called...)
			out, err = run(nil, "list")
			expect(out, err, "called with list")
			out, err = run(nil, "claims")
			expect(out, err, "called with run *-divert-* *-natlook-* *-redirect-* *-queue-* inet-to-* inet6-to-*")

			kyua := filepath.Join(dir, "bin", "kyua")
			if err := os.MkdirAll(filepath.Dir(kyua), 0o777); err != nil {
				t.Fatal(err)
			}
			const stubKyua = "#!/bin/sh\necho \"kyua $*\"; ./pfdivert-atf -l\n"
			if err := os.WriteFile(kyua, []byte(stubKyua), 0o777); err != nil {
				t.Fatal(err)
			}
			path := "PATH=" + filepath.Dir(kyua) + ":" + os.Getenv("PATH")
			out, err = run([]string{path}, "kyua", "KYUA_FLAGS=-v test_suites.pfdivert.X=y")
			expect(out, err, "kyua -v test_suites.pfdivert.X=y test", "called with -l")

			out, err = run(nil, "-j4", "dist")
			expect(out, err)
			for _, name := range []string{
				"linux-amd64", "linux-arm64", "openbsd-amd64", "openbsd-arm64", "openbsd-386",
				"freebsd-amd64", "freebsd-arm64", "freebsd-386",
			} {
				system, arch, _ := strings.Cut(name, "-")
				expect(out, nil, "go GOOS="+system+" GOARCH="+arch+" CGO_ENABLED=0 build")
				if _, err := os.Stat(filepath.Join(dir, "dist", "pfdivert-"+name)); err != nil {
					t.Error(err)
				}
			}

			out, err = run(nil, "image")
			expect(out, err, "dist/pfdivert-linux-arm64", "dist/image", "go GOOS= GOARCH= CGO_ENABLED= run")

			root := filepath.Join(dir, "a root")
			out, err = run(nil, "install", "DESTDIR="+root, "PREFIX=/opt/x")
			expect(out, err)
			if info, err := os.Stat(filepath.Join(root, "opt/x/bin/pfdivert")); err != nil ||
				info.Mode().Perm() != 0o755 {
				t.Errorf("installed: %v, %v", info, err)
			}
			page, err := os.ReadFile(filepath.Join("..", "docs", "pfdivert.1"))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"pfdivert", "pfdivert-server", "pfdivert-natlook"} {
				text, err := os.ReadFile(filepath.Join(root, "opt/x/man/man1", name+".1"))
				if err != nil || !bytes.Equal(text, page) {
					t.Errorf("the page of %s: %v", name, err)
				}
			}

			for _, name := range []string{
				"bash-completion/completions/pfdivert.bash", "zsh/site-functions/_pfdivert",
				"fish/vendor_completions.d/pfdivert.fish",
			} {
				want, err := os.ReadFile(filepath.Join("../contrib/completions", filepath.Base(name)))
				text, readErr := os.ReadFile(filepath.Join(root, "opt/x/share", name))
				if err != nil || readErr != nil || !bytes.Equal(text, want) {
					t.Errorf("the completion %s: %v, %v", name, err, readErr)
				}
			}

			out, err = run(nil, "help")
			expect(out, err, "make help\t\tprints this list")
			if strings.Contains(out, "GO_BUILD") || strings.Contains(out, "#") {
				t.Errorf("make help prints more than the list:\n%s", out)
			}

			out, err = run(nil, "generate")
			expect(out, err)
			text, err := os.ReadFile(filepath.Join(dir, "regress.mk"))
			if err != nil || !strings.HasPrefix(string(text), "# ") ||
				!strings.HasSuffix(string(text), "not edit.\nREGRESS_TARGETS += run-inet-args-tcp-to\nCLAIM_TARGETS += run-inet-divert-no-loop-in\n") {
				t.Errorf("generated, %v:\n%s", err, text)
			}

			out, err = run(nil, "clean")
			expect(out, err)
			for _, name := range []string{"pfdivert", "pfdivert-atf", "dist"} {
				if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
					t.Errorf("%s is there after make clean", name)
				}
			}
		})
	}
}

// TestRegressTree has bmake, which OpenBSD's make is kin to, run the Makefile that drops into
// OpenBSD's regress tree, with what matters of bsd.regress.mk(5).
func TestRegressTree(t *testing.T) {
	bmake := labtest.Program(t, "bmake")
	dir := t.TempDir()
	const framework = ".MAIN: regress\nregress:\n.for t in ${REGRESS_TARGETS}\n\t@echo \"==== ${t} ====\"; ${MAKE} -f ${MAKEFILE} ${t} || echo FAILED; echo\n.endfor\n"
	const program = "#!/bin/sh\ncase \"$*\" in 'list -names') echo one; echo two;; 'run -regress two') echo why; exit 1;; *) echo \"$*\";; esac\n"
	for name, text := range map[string]string{"sys.mk": "", "bsd.regress.mk": framework, "pfdivert": program} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bmake, "-m", dir, "-f", "Makefile", "PFDIVERT="+filepath.Join(dir, "pfdivert"), "SUDO=env")
	cmd.Dir = "../regress"
	out, err := cmd.CombinedOutput()
	const want = "==== run-one ====\nrun -regress one\n\n==== run-two ====\nwhy\n"
	if err != nil || !strings.HasPrefix(string(out), want) || !strings.HasSuffix(string(out), "FAILED\n\n") {
		t.Errorf("%v:\n%s", err, out)
	}
}
