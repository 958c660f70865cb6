package pf

import (
	"errors"
	"fmt"
	"strings"
)

// words reads the words of a printed rule one by one.
type words struct{ left []string }

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
		w.left = append(w.left, line[:end])
		line = line[end:]
	}
	return w, nil
}

// peek returns the next word, "" at the end.
func (w *words) peek() string {
	if len(w.left) == 0 {
		return ""
	}
	return w.left[0]
}

// next takes the next word.
func (w *words) next() string {
	word := w.peek()
	if word != "" {
		w.left = w.left[1:]
	}
	return word
}

// is takes the next word if it is this one.
func (w *words) is(word string) bool {
	if w.peek() != word {
		return false
	}
	w.next()
	return true
}

// want takes the next word, which must be this one.
func (w *words) want(word string) error {
	if !w.is(word) {
		return fmt.Errorf("%q is not there before %.40q", word, w.peek())
	}
	return nil
}

// argument takes a word that must be there.
func (w *words) argument(of string) (string, error) {
	word := w.next()
	if word == "" {
		return "", fmt.Errorf("nothing follows %q", of)
	}
	return word, nil
}
