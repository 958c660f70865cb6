package host

import (
	"errors"
	"fmt"
	"strings"
)

// sshCommand is how ssh(1) is called for one host.
type sshCommand struct {
	path        string   // of ssh
	options     []string // of the user
	destination string
	socket      string // the master's
}

// ours are the settings that the data stream depends on. They come first,
// because ssh_config(5) gives the first value that is met. RemoteCommand wants
// OpenSSH 7.6 (2017).
var ours = []string{
	"-o", "RemoteCommand=none",
	"-o", "PermitLocalCommand=no",
	"-o", "ClearAllForwardings=yes",
	"-o", "Tunnel=no",
	"-o", "ControlPersist=no",
}

// defaults come after the user's options, which may say otherwise. A network
// that is gone is noticed after 15 s.
var defaults = []string{
	"-o", "ConnectTimeout=20",
	"-o", "ServerAliveInterval=5",
	"-o", "ServerAliveCountMax=3",
}

// args are the arguments of ssh for a command of the remote login shell. The
// first call becomes the master, the later ones go through it and never ask
// anything. The flags at the end win over the user's.
func (c *sshCommand) args(master, ask bool, command string) []string {
	a := append([]string{}, ours...)
	if !ask {
		a = append(a, "-o", "BatchMode=yes")
	}
	if master {
		a = append(a, "-o", "ControlMaster=yes")
	} else {
		a = append(a, "-o", "ControlMaster=no")
	}
	a = append(a, c.options...)
	a = append(a, defaults...)
	return append(a, "-S", c.socket, "-T", "-x", "-a", "--", c.destination, command)
}

// splitWords splits like a shell, as far as words, blanks, quotes and
// backslashes go: $SSH_OPTIONS and $SUDO.
func splitWords(s string) ([]string, error) {
	var words []string
	var word []byte
	var in, quote bool // in a word; behind a backslash
	var mark byte      // the quote that is open
	for _, c := range []byte(s) {
		switch {
		case quote:
			if mark == '"' && !strings.ContainsRune("\"\\$`", rune(c)) {
				word = append(word, '\\')
			}
			word, quote = append(word, c), false
		case c == '\\' && mark != '\'':
			in, quote = true, true
		case mark != 0:
			if c == mark {
				mark = 0
			} else {
				word = append(word, c)
			}
		case c == '\'' || c == '"':
			in, mark = true, c
		case c == ' ' || c == '\t' || c == '\n':
			if in {
				words = append(words, string(word))
			}
			word, in = word[:0], false
		default:
			in, word = true, append(word, c)
		}
	}
	switch {
	case mark != 0:
		return nil, fmt.Errorf("the quote %c is not closed", mark)
	case quote:
		return nil, errors.New("nothing follows the backslash at the end")
	case in:
		words = append(words, string(word))
	}
	return words, nil
}

// command joins words to a command that sh, csh and fish understand alike.
// Within single quotes they differ on quotes, backslashes, line ends and
// csh's '!'.
func command(words ...string) (string, error) {
	quoted := make([]string, len(words))
	for i, w := range words {
		switch {
		case strings.ContainsAny(w, "'\\!\n\x00"):
			return "", fmt.Errorf("%q has a character that not all login shells take alike", w)
		case w != "" && plain(w):
			quoted[i] = w
		default:
			quoted[i] = "'" + w + "'"
		}
	}
	return strings.Join(quoted, " "), nil
}

// plain tells whether no shell sees anything but letters in s. The probe has
// the same list.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("/._@+-", c) >= 0) {
			return false
		}
	}
	return true
}
