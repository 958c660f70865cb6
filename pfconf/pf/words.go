package pf

import (
	"errors"
	"fmt"
	"strings"

	"pfdivert/pfconf"
)

// words reads the words of a printed rule one by one.
type words struct{ pfconf.Words }

// splitWords splits a line at blanks; a string in quotes and a group in parentheses belong to one
// word each: `set ( prio 3 )` is two words, `queue(a, b)` one.
func splitWords(line string) (*words, error) {
	w := &words{}
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		end, depth, quoted := 0, 0, false
		for ; end < len(line) && (depth > 0 || quoted || line[end] != ' '); end++ {
			switch c := line[end]; {
			case c == '"':
				quoted = !quoted
			case c == '(' && !quoted:
				depth++
			case c == ')' && !quoted:
				depth--
			}
		}
		if quoted || depth > 0 {
			return nil, errors.New("a quote or a parenthesis has no end")
		}
		w.Left = append(w.Left, line[:end])
		line = line[end:]
	}
	return w, nil
}

// want takes the next word, which must be this one.
func (w *words) want(word string) error {
	if !w.Is(word) {
		return fmt.Errorf("%q is not there before %.40q", word, w.Peek())
	}
	return nil
}

// argument takes a word that must be there.
func (w *words) argument(of string) (string, error) {
	word := w.Next()
	if word == "" {
		return "", fmt.Errorf("nothing follows %q", of)
	}
	return word, nil
}
