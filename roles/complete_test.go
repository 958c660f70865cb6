package roles

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pfdivert/matrix"
	"pfdivert/matrix/faults"
	"pfdivert/roles/lab/labtest"
)

// completeCases are command lines of which the last word is completed, with what it can be.
var completeCases = []struct {
	line string
	want []string
}{
	{"ru", []string{"run"}},
	{"c", []string{"check-setup", "cleanup", "client", "compare"}},
	{"agen", nil},
	{"-compare-", []string{"-compare-families"}},
	{"run -js", []string{"-json"}},
	{"run -ju", []string{"-junit"}},
	{"run -co", []string{"-compare-families", "-count"}},
	{"run -html pa", []string{"page.html"}},
	{"run -o re", []string{"results/"}},
	{"run -o pa", nil},
	{"run -count 3 -v -json=x -regr", []string{"-regress"}},
	{"run -v inet6-args-tcp-r", []string{"inet6-args-tcp-reply"}},
	{"run inet-args-tcp-to inet6-args-tcp-t", []string{"inet6-args-tcp-to"}},
	{"list inet-divert-no-loop-i", []string{"inet-divert-no-loop-in"}},
	{"faults -only no-policy-rule-", []string{"no-policy-rule-single"}},
	{"server -proto tcp -bindan", []string{"-bindany"}},
	{"pf-setup stat", []string{"states", "status"}},
	{"pf-setup timeo", []string{"timeouts"}},
	{"pf-setup states -pl", []string{"-plain"}},
	{"install re", []string{"results/"}},
	{"compare pa", []string{"page.html"}},
	{"help ins", []string{"install"}},
	{"version pa", nil},
	{"no-such-role ru", nil},
}

// TestCompleteRoles: what is completed is what the roles have.
func TestCompleteRoles(t *testing.T) {
	words := func(args ...string) (words []string) {
		status, out, said := callMain(append([]string{"pfdivert", "complete", "--"}, args...)...)
		if status != exitOK || said != "" {
			t.Errorf("%q: exit status %d, %s", args, status, said)
		}
		for line := range strings.Lines(out) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			words = append(words, word)
		}
		return words
	}
	var names []string
	for _, r := range all() {
		if r.Hidden {
			continue
		}
		names = append(names, r.Name)
		_, help, _ := callMain("pfdivert", r.Name, "-h")
		has := words(r.Name, "-")
		for i := range has {
			has[i] = strings.TrimPrefix(has[i], "-")
		}
		want := flagsOf(`(?m)^  -(\S+)(?: \S+)?(?:\t.*)?$`, flagList(help))
		if !slices.Equal(has, want) {
			t.Errorf("%s: the flags %q, want %q", r.Name, has, want)
		}
	}
	if has := words(""); !slices.Equal(has, names) {
		t.Errorf("the roles %q, want %q", has, names)
	}
	if has, want := len(words("run", "")), len(matrix.Targets())+len(matrix.Claims()); has != want {
		t.Errorf("%d targets, want %d", has, want)
	}
	if has, want := len(words("faults", "-only", "")), len(faults.All()); has != want {
		t.Errorf("%d faults, want %d", has, want)
	}
}

// zshCompletes types each line and the key of completion in an interactive zsh, and prints what
// the line is then. The shell is awaited by its prompt, the line by the marks around it.
const zshCompletes = `
zmodload zsh/zpty
zpty z zsh -i
zpty -r z text '*READY*' || exit 1
for line; do
	zpty -w -n z "$line"$'\t\x14'
	zpty -r z text '*BEGIN*END*' || exit 1
	text=${text##*BEGIN}
	print -r -- "${text%%END*}"
done
zpty -d z
`

const zshrc = `
PS1=READY
fpath=($COMPLETIONS $fpath)
autoload -Uz compinit && compinit -u -D
show() { print -r -- "BEGIN${BUFFER}END"; BUFFER= }
zle -N show
bindkey -e; bindkey '^T' show
unsetopt zle_bracketed_paste beep 2>/dev/null
`

// TestCompletions runs the shells with the files of contrib/completions.
func TestCompletions(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Abs("../contrib/completions")
	if err != nil {
		t.Fatal(err)
	}
	dir, bin := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.Symlink(exe, filepath.Join(bin, "pfdivert")), os.Mkdir(filepath.Join(dir, "results"), 0o777),
		os.WriteFile(filepath.Join(dir, "page.html"), nil, 0o666),
		os.WriteFile(filepath.Join(dir, ".zshrc"), []byte(zshrc), 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(t *testing.T, name string, args ...string) string {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, labtest.Program(t, name), args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), asProgram+"=1", "PATH="+bin+":"+os.Getenv("PATH"), "TERM=dumb", "HOME="+dir,
			"ZDOTDIR="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "COMPLETIONS="+files)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	// Each shell gets all lines, and prints what each becomes on a line of its own.
	shells := map[string]func(t *testing.T, lines []string) string{
		"bash": func(t *testing.T, lines []string) string {
			const script = `. "$COMPLETIONS/pfdivert.bash"; complete -p pfdivert >/dev/null || exit
				compopt() { :; } # bash has it only while it completes
				for line; do
					COMP_WORDS=(pfdivert $line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
					_pfdivert
					for i in "${!COMPREPLY[@]}"; do [ ! -d "${COMPREPLY[i]}" ] || COMPREPLY[i]+=/; done
					echo "${COMPREPLY[@]}"
				done`
			return run(t, "bash", append([]string{"-c", script, "bash"}, lines...)...)
		},
		"fish": func(t *testing.T, lines []string) string {
			const script = `source $COMPLETIONS/pfdivert.fish
				for line in $argv; echo (complete -C "pfdivert $line" | string replace -r '\t.*' ''); end`
			return run(t, "fish", append([]string{"--no-config", "-c", script, "--"}, lines...)...)
		},
		"zsh": func(t *testing.T, lines []string) string {
			typed := []string{"-f", "-c", zshCompletes, "zsh"}
			for _, line := range lines {
				typed = append(typed, "pfdivert "+line)
			}
			return run(t, "zsh", typed...)
		},
	}
	for name, complete := range shells {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var lines []string
			for _, c := range completeCases {
				lines = append(lines, c.line)
			}
			out := strings.Split(complete(t, lines), "\n")
			if len(out) != len(lines)+1 {
				t.Fatalf("%d lines for %d:\n%s", len(out)-1, len(lines), strings.Join(out, "\n"))
			}
			for i, c := range completeCases {
				has, want := strings.Fields(out[i]), c.want
				slices.Sort(has)
				if name == "zsh" { // it shows the line, as far as all that fits agrees
					has, want = strings.Fields(out[i])[1:], strings.Fields(c.line)
					if len(c.want) > 0 {
						want[len(want)-1] = commonPrefix(c.want)
					}
				}
				if !slices.Equal(has, want) {
					t.Errorf("%s: %q, want %q", c.line, has, want)
				}
			}
		})
	}
}

// commonPrefix returns what all words begin with.
func commonPrefix(words []string) string {
	prefix := words[0]
	for _, w := range words {
		for !strings.HasPrefix(w, prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	return prefix
}
