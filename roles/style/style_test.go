// Package style holds what a machine can hold of how this program is written: the form and the
// width of comments, the width of code, and words to avoid. It is part of "make check".
package style

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// Widths in columns; a tab goes to the next multiple of tabWidth.
const (
	commentWidth = 100
	codeWidth    = 120
	tabWidth     = 4
	besideString = 60 // what may stand beside a string that makes its line too wide
)

// words are phrases to avoid in comments, messages and documents, with what to write instead.
var words = []struct {
	avoid   *regexp.Regexp
	instead string
}{
	{phrase(`(tell|say)s? whether`), "reports whether"},
	{phrase(`(give|hand)(s|n)? back|gave back|hand(s|ed)? over`), "returns; of a packet: reinjects, delivers"},
	{phrase(`mend(s|ed|ing)?`), "fix"},
	{phrase(`nobody(['’]s)?`), "no one, no process, unassigned"},
	{phrase(`somebody(['’]s)?`), "someone, another process, a listener"},
	{phrase(`(becomes?|became) of`), "happens to"},
	{phrase(`ha(s|ve) (no|nothing|a) part in|nothing to do with`), "does not affect"},
	{phrase(`(is|are|be|was|were|been)n?t? played|not played|plays|play (at|each|in|it|the|what)`), "is run, runs, run"},
	{phrase(`it ends with [0-9]`), "exits with status"},
	{phrase(`there (are|is) asked`), "the orchestrator asks"},
	{phrase(`begins anew`), "starts again"},
}

// stems are parts of all that words can match, in small letters: texts without them are not
// searched.
var stems = []string{
	"wheth", "back", "hand", "mend", "body", "became", "become", "part", "nothing", "play", "ends with", "asked", "anew",
}

// phrase matches words as a whole. What is joined to them by a hyphen or an underscore, or by a
// dot, is a name and no word.
func phrase(pattern string) *regexp.Regexp {
	return regexp.MustCompile(`(?i)(?:^|[^\w.*/-])(` + strings.ReplaceAll(pattern, " ", `\s+`) + `)(?:$|[^\w=/-])`)
}

// allowed are texts in which a word to avoid is the right one: a name, or a key that never changes.
var allowed = regexp.MustCompile("^\"nobody\"$|\"mend(ed)?\"|`mend`|json:\"mend|user nobody|nobody's user|su(do)? -u nobody|(as|to|of|for) nobody|nobody:|User: +\"nobody\"|\\bnobody\\(")

// generated are files in which the rules are not held.
var generated = []string{"docs/kernels.md"}

// finding is where a rule is broken.
type finding struct {
	file string
	line int
	text string
}

func (f finding) String() string { return fmt.Sprintf("%s:%d: %s", f.file, f.line, f.text) }

// columns returns the width of a line.
func columns(line string) (n int) {
	for _, r := range line {
		if r == '\t' {
			n += tabWidth - n%tabWidth
		} else {
			n++
		}
	}
	return n
}

// checkWords returns the words of text that are to be avoided; line is that of its beginning.
func checkWords(file string, line int, text string) (found []finding) {
	small := strings.ToLower(text)
	if !slices.ContainsFunc(stems, func(s string) bool { return strings.Contains(small, s) }) {
		return nil
	}
	cleared := allowed.ReplaceAllStringFunc(text,
		func(s string) string { return strings.Repeat("*", utf8.RuneCountInString(s)) })
	for _, w := range words {
		for _, at := range w.avoid.FindAllStringSubmatchIndex(cleared, -1) {
			found = append(found, finding{file, line + strings.Count(cleared[:at[2]], "\n"),
				fmt.Sprintf("%q: write %q", text[at[2]:at[3]], w.instead)})
		}
	}
	slices.SortStableFunc(found, func(a, b finding) int { return a.line - b.line })
	return found
}

// checkGo returns what is wrong in a Go file.
func checkGo(name string, source []byte) ([]finding, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var found []finding
	lineOf := func(p token.Pos) int { return files.Position(p).Line }

	comments := map[int]bool{}
	inStrings := map[int]int{} // width of the widest string of a line; codeWidth in one that goes over several
	for _, group := range file.Comments {
		for _, c := range group.List {
			for n := lineOf(c.Pos()); n <= lineOf(c.End()); n++ {
				comments[n] = true
			}
		}
		found = append(found, checkWords(name, lineOf(group.Pos()), sourceOf(group))...)
	}
	widest := func(line, width int) { inStrings[line] = max(inStrings[line], width) }
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			if n.Tag != nil {
				widest(lineOf(n.Tag.Pos()), math.MaxInt32)
			}
			return true
		case *ast.KeyValueExpr: // gofmt keeps both on one line
			_, key := n.Key.(*ast.BasicLit)
			_, value := n.Value.(*ast.BasicLit)
			if first := lineOf(n.Pos()); key && value && first == lineOf(n.End()) {
				widest(first, utf8.RuneCount(source[files.Position(n.Pos()).Offset:files.Position(n.End()).Offset]))
			}
		case *ast.BasicLit:
			if n.Kind != token.STRING {
				return true
			}
			first, last := lineOf(n.Pos()), lineOf(n.End())
			if first == last {
				widest(first, utf8.RuneCountInString(n.Value))
				last--
			}
			for l := first; l <= last; l++ {
				widest(l, math.MaxInt32)
			}
			found = append(found, checkWords(name, lineOf(n.Pos()), n.Value)...)
		}
		return true
	})
	for i, line := range strings.Split(string(source), "\n") {
		n := i + 1
		switch width := columns(line); {
		case strings.HasPrefix(strings.TrimSpace(line), "//go:"):
		case strings.HasPrefix(strings.TrimSpace(line), "//"):
			example := strings.Contains(line, "//\t") || strings.Contains(line, "://")
			if width > commentWidth && comments[n] && !example {
				found = append(found, finding{name, n,
					fmt.Sprintf("the comment has %d columns: break it before %d", width, commentWidth)})
			}
		case width > codeWidth && width-inStrings[n] > besideString:
			found = append(found, finding{name, n,
				fmt.Sprintf("the line has %d columns: break it before %d", width, codeWidth)})
		}
	}
	return append(found, checkDocs(name, files, file)...), nil
}

// sourceOf returns the text of a comment without its slashes, line by line.
func sourceOf(group *ast.CommentGroup) string {
	var lines []string
	for _, c := range group.List {
		lines = append(lines, strings.TrimPrefix(c.Text, "//"))
	}
	return strings.Join(lines, "\n")
}

// checkDocs returns the doc comments that do not begin with what they are about.
func checkDocs(name string, files *token.FileSet, file *ast.File) (found []finding) {
	if strings.HasSuffix(name, "_test.go") {
		return nil
	}
	check := func(doc *ast.CommentGroup, names ...*ast.Ident) {
		if doc == nil || len(names) == 0 {
			return
		}
		text := doc.Text()
		for _, n := range names {
			for _, article := range []string{"", "A ", "An ", "The "} {
				if rest, ok := strings.CutPrefix(text, article+n.Name); ok && (rest == "" || !isWord(rest[0])) {
					return
				}
			}
		}
		if ast.IsExported(names[0].Name) {
			found = append(found, finding{name, files.Position(doc.Pos()).Line,
				fmt.Sprintf("the comment does not begin with %s", names[0].Name)})
		}
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			check(d.Doc, d.Name)
		case *ast.GenDecl:
			if d.Lparen.IsValid() { // a group has a sentence of its own
				continue
			}
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					check(d.Doc, s.Name)
				case *ast.ValueSpec:
					check(d.Doc, s.Names...)
				}
			}
		}
	}
	return found
}

func isWord(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

// TestTree: the files of this program follow the rules.
func TestTree(t *testing.T) {
	const root = "../.."
	files := 0
	err := filepath.WalkDir(root, func(file string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, file)
		if d.IsDir() {
			if base := filepath.Base(file); base == "testdata" || base == "dist" || base == "out" ||
				strings.HasPrefix(base, ".") && name != "." && base != ".." {
				return filepath.SkipDir
			}
			return nil
		}
		kind := filepath.Ext(file)
		slashed := filepath.ToSlash(name)
		if kind != ".go" && kind != ".md" || path.Dir(slashed) == "roles/style" || slices.Contains(generated, slashed) {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		files++
		found := checkWords(name, 1, string(text))
		if kind == ".go" {
			if found, err = checkGo(name, text); err != nil {
				return err
			}
		}
		for _, f := range found {
			t.Error(f)
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Fatalf("%d files: %v", files, err)
	}
}

// TestChecks: each rule finds what breaks it, and nothing else.
func TestChecks(t *testing.T) {
	long := strings.Repeat("x", codeWidth)
	for _, c := range []struct{ source, want string }{
		{"// Open opens it.\nfunc Open() {}", ""},
		{"// An Opener opens it.\ntype Opener int", ""},
		{"// This opens it.\nfunc Open() {}", "does not begin with Open"},
		{"// Opens it.\nfunc Open() {}", "does not begin with Open"},
		{"// Opens it.\ntype Opener int", "does not begin with Opener"},
		{"// Opens it.\nvar Door, Gate = 1, 2", "does not begin with Door"},
		{"// Gate is open.\nvar Door, Gate = 1, 2", ""},
		{"// What is open.\nvar (\n\tDoor = 1\n)", ""},
		{"// opens it.\nfunc open() {}", ""},
		{"// " + long + "\n", "the comment has 123 columns"},
		{"// https://" + long + "\n", ""},
		{"var a" + long + " = 1", "the line has 129 columns"},
		{"var a = \"" + long + "\"", ""},
		{"var a = map[string]string{\n\t\"" + long[:61] + "\": \"" + long[:61] + "\",\n}", ""},
		{"var a = map[int]string{\n\ta" + long[:61] + ": \"" + long[:61] + "\",\n}", "the line has 132 columns"},
		{"var a = `\n" + long + "\n`", ""},
		{"//go:generate " + long, ""},
		{"// a tells whether it is open.\nvar a int", `"tells whether": write "reports whether"`},
		{"// a says\n// whether it is open.\nvar a int", `write "reports whether"`},
		{"var a = \"nobody listens\"", `"nobody": write`},
		{"var a = \"nobody\" // the user", ""},
		{"var a = \"header-mended-out, mend\"", `"mend": write "fix"`},
		{"var a = \"header-mended-out\"", ""},
		{"type a struct {\n\tFix string `json:\"mend,omitempty\"`\n}", ""},
		{"func mend() { mend() }", ""},
	} {
		found, err := checkGo("a.go", []byte("package a\n\n"+c.source+"\n"))
		var got []string
		for _, f := range found {
			got = append(got, f.String())
		}
		if err != nil || (c.want == "") != (len(got) == 0) || len(got) > 1 || c.want != "" &&
			!strings.Contains(got[0], c.want) {
			t.Errorf("%s\n%v, found %q, want %q", c.source, err, got, c.want)
		}
	}
	found := checkWords("page.md", 1, "One.\nPlays are\ngiven back by nobody.\nUse `mend`.\n")
	if len(found) != 3 || found[1].line != 3 ||
		found[1].text != `"given back": write "returns; of a packet: reinjects, delivers"` {
		t.Errorf("found %v", found)
	}
}
