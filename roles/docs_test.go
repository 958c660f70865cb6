package roles_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pfdivert/matrix/explain"
	"pfdivert/roles"
)

// pages are the pages whose commands must exist.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("../docs/*.md")
	if err != nil || len(names) == 0 {
		t.Fatal("no docs: ", err)
	}
	all := map[string]string{}
	for _, name := range append(names, "../README.md", "../contrib/ansible/README.md", "../contrib/github/README.md",
		"../contrib/lava/README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(text)
	}
	return all
}

// TestReasonsDocumented: docs/reasons.md has a section for each reason code of
// matrix/finding.go and for nothing else.
func TestReasonsDocumented(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../matrix/finding.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			for _, v := range s.(*ast.ValueSpec).Values {
				code, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				codes = append(codes, code)
			}
		}
	}
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^### (.*)$`).FindAllStringSubmatch(pages(t)["../docs/reasons.md"], -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(codes)
	slices.Sort(documented)
	// What passed user space by needs counters to be explained; a SKIP for want of a claim, of
	// joined packets or of permission, needs nothing.
	bare := []string{"not-rewritten", "not-claimed", "not-joined", "dangerous"}
	for _, code := range codes {
		cause := explain.Explain(explain.Case{Reason: code, Mechanism: explain.DivertReply}).Cause
		if (cause == "unexplained") != slices.Contains(bare, code) {
			t.Errorf("reason %s alone is explained by %s", code, cause)
		}
	}
	if len(codes) == 0 || !slices.Equal(codes, documented) {
		t.Errorf("reason codes are\n%q, docs/reasons.md has\n%q", codes, documented)
	}
}

// Files and tests that pages name are there. SYSTEM stands for a system's name, and a name may be a
// pattern.
func TestSourceNamed(t *testing.T) {
	var sources []string
	tests := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)\w+)\(`)
	err := filepath.WalkDir("..", func(name string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".go") {
			return err
		}
		sources = append(sources, filepath.ToSlash(name))
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(name)
		for _, m := range function.FindAllSubmatch(text, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for page, text := range pages(t) {
		for _, m := range regexp.MustCompile("`([\\w./*-]+\\.go)`").FindAllStringSubmatch(text, -1) {
			pattern := strings.ReplaceAll(m[1], "SYSTEM", "*")
			if strings.HasPrefix(pattern, "_") {
				pattern = "*" + pattern
			}
			named++
			if !slices.ContainsFunc(sources, func(source string) bool {
				for at := source; ; {
					if ok, err := path.Match(pattern, at); ok || err != nil {
						return ok
					}
					_, below, found := strings.Cut(at, "/")
					if at = below; !found {
						return false
					}
				}
			}) {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
		for _, m := range regexp.MustCompile("`((?:Test|Benchmark)\\w+)[`/]").FindAllStringSubmatch(text, -1) {
			if named++; !tests[m[1]] {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
	}
	if named < 50 {
		t.Errorf("only %d names were found", named)
	}
}

var (
	// Commands with their arguments, as far as a shell reads them.
	command = regexp.MustCompile(`(?:^|[ /])pfdivert (help )?([a-z][-a-z]*)([^|;&>#]*)`)
	maker   = regexp.MustCompile(`(?:^|[ (])b?make ([^|;&>#]*)`)
	flagged = regexp.MustCompile(`(?:^| )-([a-z0-9][-a-z0-9]*)`)
	alone   = regexp.MustCompile(`^-([a-z][-a-z]*)( [A-Z0-9]+| on)?$`)
	spans   = regexp.MustCompile("`([^`]+)`")
	link    = regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)
)

// help is what the program says of a role, "" if there is none.
func help(role string) string {
	var out, err bytes.Buffer
	std := roles.IO{In: strings.NewReader(""), Out: &out, Err: &err, Getenv: func(string) string { return "" }}
	if roles.Main("test", []string{"pfdivert", "help", role}, std) != 0 {
		return ""
	}
	return out.String()
}

// has reports whether a role's help has the flag.
func has(help, flag string) bool {
	return flag == "h" || regexp.MustCompile(`(?m)^  -`+regexp.QuoteMeta(flag)+`\b`).MatchString(help)
}

// codeOf gives the code of a page: its indented and fenced lines up to an
// explanation behind two spaces, and what is between backquotes.
func codeOf(page string) []string {
	var code []string
	fenced := false
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\n")
		switch text := strings.TrimSpace(line); {
		case strings.HasPrefix(text, "```"):
			fenced = !fenced
		case fenced || strings.HasPrefix(line, "    "):
			text, _, _ = strings.Cut(text, "  ")
			code = append(code, text)
		default:
			for _, m := range spans.FindAllStringSubmatch(line, -1) {
				code = append(code, m[1])
			}
		}
	}
	return code
}

// TestDocumentedCommands: each role, flag and make target that a page shows exists.
func TestDocumentedCommands(t *testing.T) {
	var targets []string
	for _, name := range []string{"../Makefile", "../regress.mk"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^([a-z][-a-z]*):|\+= (run-\S+)|(dist/pfdivert-[-a-z0-9]+)`).
			FindAllStringSubmatch(string(text), -1) {
			targets = append(targets, m[1]+m[2]+m[3])
		}
	}
	roleNames := []string{
		"run", "list", "compare", "merge", "kernels", "lab", "server", "client", "packet", "pf-setup", "natlook",
		"check-setup", "doctor", "cleanup", "install", "version", "faults", "initramfs", "atf",
	}
	commands := 0
	for name, page := range pages(t) {
		for _, line := range codeOf(page) {
			for _, m := range command.FindAllStringSubmatch(line, -1) {
				commands++
				role := m[2]
				if role == "help" {
					continue
				}
				text := help(role)
				if text == "" {
					t.Errorf("%s: there is no role %q: %s", name, role, line)
					continue
				}
				args, _, _ := strings.Cut(m[3], " -- ")
				for _, f := range flagged.FindAllStringSubmatch(args, -1) {
					if !has(text, f[1]) {
						t.Errorf("%s: role %s has no flag -%s: %s", name, role, f[1], line)
					}
				}
			}
			for _, m := range maker.FindAllStringSubmatch(line, -1) {
				for _, word := range strings.Fields(m[1]) {
					if strings.ToLower(word) == word && !strings.Contains(word, "=") &&
						!slices.Contains(targets, word) {
						t.Errorf("%s: make has no target %q: %s", name, word, line)
					}
				}
			}
			for _, m := range alone.FindAllStringSubmatch(line, -1) {
				if !slices.ContainsFunc(roleNames, func(r string) bool { return has(help(r), m[1]) }) {
					t.Errorf("%s: no role has a flag -%s: %s", name, m[1], line)
				}
			}
		}
	}
	if commands < 20 {
		t.Errorf("only %d commands were found in the pages: the test looks past them", commands)
	}
}

// TestDocumentedErrors: the program can say each error of the table in docs/remote.md, up to
// names and what another program said: its parts are in the texts of this program.
func TestDocumentedErrors(t *testing.T) {
	var source strings.Builder
	for _, dir := range []string{"../roles", "../pfconf", "../matrix"} {
		err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					text, _ := strconv.Unquote(l.Value)
					source.WriteString(text + "\n")
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, table, _ := strings.Cut(pages(t)["../docs/remote.md"], "| error | what to do |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	rows, named := 0, regexp.MustCompile(`: |…|\b(NAME|FAKE_ADDR|inet|regress|\d+)\b`)
	for line := range strings.Lines(table) {
		rows++
		for _, part := range named.Split(strings.Split(line, "|")[1], -1) {
			part = strings.Trim(part, ` "`)
			said := strings.Contains(source.String(), part)
			if part != "" && !said && part != "Device busy" && part != "Protocol not available" {
				t.Errorf("no text of the program has %q: %s", part, line)
			}
		}
	}
	if rows < 15 {
		t.Errorf("the table has %d rows", rows)
	}
}

// TestDocumentedLinks: what the pages link to is there, headings too.
func TestDocumentedLinks(t *testing.T) {
	all := pages(t)
	for name, page := range all {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			to := name
			if m[1] != "" {
				to = path.Join(path.Dir(name), m[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if m[2] != "" && !slices.Contains(anchors(all[to]), m[2][1:]) {
				t.Errorf("%s: %s has no heading for %s", name, to, m[2])
			}
		}
	}
}

// anchors are the names by which the headings of a page are linked to: small
// letters, '-' for spaces, no other signs.
func anchors(page string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")
		names = append(names, regexp.MustCompile(`[^-a-z0-9_]`).ReplaceAllString(name, ""))
	}
	return names
}

// mayImport says which of this program's packages each may use: imports point one way.
var mayImport = map[string][]string{
	"pfdivert": {"roles"},
	"pfdivert/matrix": {
		"matrix/evidence", "matrix/explain", "matrix/injection", "matrix/script", "pfconf",
	},
	"pfdivert/matrix/evidence":  {"pfconf"},
	"pfdivert/matrix/explain":   {"matrix/evidence", "pfconf", "pfconf/need"},
	"pfdivert/matrix/faults":    {"matrix", "matrix/injection", "pfconf"},
	"pfdivert/matrix/injection": nil,
	"pfdivert/matrix/script":    {"matrix/evidence", "matrix/injection", "pfconf"},
	"pfdivert/pfconf":           nil,
	"pfdivert/pfconf/bpf":       {"pfconf", "pfconf/need"},
	"pfdivert/pfconf/ipfw":      {"pfconf", "pfconf/program", "pfconf/shared"},
	"pfdivert/pfconf/need":      nil,
	"pfdivert/pfconf/netlink":   nil,
	"pfdivert/pfconf/nft": {
		"pfconf", "pfconf/bpf", "pfconf/need", "pfconf/netlink", "pfconf/rtnetlink", "pfconf/xt",
	},
	"pfdivert/pfconf/pf":                 {"pfconf", "pfconf/program", "pfconf/shared"},
	"pfdivert/pfconf/program":            nil,
	"pfdivert/pfconf/program/replaytest": {"pfconf/program"},
	"pfdivert/pfconf/rtnetlink":          nil,
	"pfdivert/pfconf/shared":             nil,
	"pfdivert/pfconf/xt":                 {"pfconf"},
	"pfdivert/roles": {
		"matrix", "matrix/evidence", "matrix/explain", "matrix/faults", "matrix/script", "pfconf",
		"pfconf/nft", "pfconf/pf", "roles/agent", "roles/gather", "roles/host", "roles/kernel",
		"roles/lab", "roles/lab/bsd", "roles/lab/namespace", "roles/report", "roles/socket",
		"roles/terminal", "roles/testbed", "roles/twin",
	},
	"pfdivert/roles/agent": {
		"matrix/evidence", "matrix/script", "pfconf", "pfconf/ipfw", "pfconf/need", "pfconf/nft",
		"pfconf/pf", "pfconf/program", "pfconf/rtnetlink", "roles/gather", "roles/kernel/splat",
		"roles/lab/bsd", "roles/lab/inject", "roles/lab/namespace", "roles/middlebox", "roles/socket", "roles/twin",
		"roles/wire",
	},
	"pfdivert/roles/gather": {
		"matrix/evidence", "pfconf", "pfconf/ipfw", "pfconf/netlink", "pfconf/pf",
		"pfconf/program", "pfconf/rtnetlink", "pfconf/shared",
	},
	"pfdivert/roles/host":         {"roles/agent", "roles/lab", "roles/lab/namespace"},
	"pfdivert/roles/host/sshtest": {"roles/lab/labtest", "roles/lab/namespace"},
	"pfdivert/roles/kernel":       {"pfconf/need", "roles/host", "roles/kernel/splat"},
	"pfdivert/roles/kernel/splat": nil,
	"pfdivert/roles/lab":          {"pfconf", "pfconf/need", "pfconf/rtnetlink", "roles/lab/namespace"},
	"pfdivert/roles/lab/bsd":      {"pfconf", "pfconf/pf", "pfconf/program"},
	"pfdivert/roles/lab/inject": {
		"matrix/injection", "pfconf", "pfconf/netlink", "pfconf/nft", "pfconf/pf", "pfconf/program",
		"pfconf/rtnetlink",
	},
	"pfdivert/roles/lab/labtest":   nil,
	"pfdivert/roles/lab/namespace": nil,
	"pfdivert/roles/report": {
		"matrix", "matrix/evidence", "matrix/explain", "matrix/faults", "pfconf", "roles/terminal",
	},
	"pfdivert/roles/socket": {
		"matrix/script", "pfconf", "pfconf/need", "pfconf/netlink", "pfconf/shared",
	},
	"pfdivert/roles/middlebox": {"matrix/script", "pfconf", "pfconf/need", "pfconf/nft", "pfconf/rtnetlink",
		"roles/socket"},
	"pfdivert/roles/terminal": {"roles/agent"},
	"pfdivert/roles/testbed": {
		"matrix", "matrix/script", "pfconf", "roles/agent", "roles/host", "roles/kernel",
		"roles/kernel/splat", "roles/lab", "roles/lab/bsd", "roles/report", "roles/terminal",
	},
	"pfdivert/roles/twin": {
		"pfconf/netlink", "pfconf/xt", "roles/lab/namespace", "roles/wire",
	},
	"pfdivert/roles/wire": nil,
}

// notForMatrix are packages by which matrix would reach the system that it runs on.
var notForMatrix = regexp.MustCompile(`^(os|os/.*|net|syscall|golang.org/x/sys/.*|unsafe)$`)

// TestImports holds the direction of imports of docs/design.md, for the files of
// all systems.
func TestImports(t *testing.T) {
	err := filepath.WalkDir("..", func(name string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && name != ".." {
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
				return filepath.SkipDir // a module of its own
			}
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") ||
			strings.Contains(name, "/vendor/") {
			return err
		}
		pkg := path.Join("pfdivert", path.Dir(strings.TrimPrefix(filepath.ToSlash(name), "../")))
		allowed, ok := mayImport[pkg]
		if !ok {
			t.Errorf("%s: package %s is not in the table of imports", name, pkg)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			of, own := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), "pfdivert/")
			if strings.HasPrefix(pkg, "pfdivert/matrix") && notForMatrix.MatchString(of) {
				t.Errorf("%s imports %s: matrix makes no system call", name, of)
			}
			if own && !slices.Contains(allowed, of) {
				t.Errorf("%s imports pfdivert/%s", name, of)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, layout, _ := strings.Cut(pages(t)["../docs/design.md"], "\n## Layout\n")
	layout, _, _ = strings.Cut(layout, "\n## ")
	for pkg := range mayImport {
		name := strings.TrimPrefix(pkg, "pfdivert/")
		if n := strings.Count(layout, "\n"+name+"/ "); n != 1 && pkg != "pfdivert" && !strings.HasSuffix(pkg, "test") {
			t.Errorf("the layout in docs/design.md has %s %d times", name, n)
		}
	}
}
