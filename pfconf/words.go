package pfconf

// Words reads the words of a rule that pfctl or ipfw printed, one by one.
type Words struct{ Left []string }

// Peek returns the next word, "" at the end.
func (w *Words) Peek() string {
	if len(w.Left) == 0 {
		return ""
	}
	return w.Left[0]
}

// Next takes the next word.
func (w *Words) Next() string {
	word := w.Peek()
	if word != "" {
		w.Left = w.Left[1:]
	}
	return word
}

// Is takes the next word if it is this one.
func (w *Words) Is(word string) bool {
	if w.Peek() != word {
		return false
	}
	w.Next()
	return true
}
