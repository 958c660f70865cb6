package kernel

import (
	"bufio"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"pfdivert/roles/kernel/splat"
)

// Console is what a guest's kernel prints.
type Console struct {
	heard chan struct{} // has a value when something came
	begun chan struct{} // closed at the kernel's first line
	over  chan struct{} // closed at its end

	mu     sync.Mutex
	last   []string // the newest lines
	finder splat.Finder
	splats []string
}

// consoleLines is how many of the newest lines are kept, and maxConsoleLine bounds each, in bytes.
const (
	consoleLines   = 200
	maxConsoleLine = 1 << 10
)

// readConsole reads a console until its end, and closes it.
func readConsole(source io.ReadCloser) *Console {
	c := &Console{heard: make(chan struct{}, 1), begun: make(chan struct{}), over: make(chan struct{})}
	go func() {
		defer close(c.over)
		defer source.Close()
		r := bufio.NewReaderSize(source, maxConsoleLine)
		for {
			line, err := r.ReadSlice('\n')
			if len(line) > 0 {
				c.add(strings.TrimRight(string(line), "\r\n"))
			}
			if err != nil && err != bufio.ErrBufferFull {
				return
			}
		}
	}()
	return c
}

func (c *Console) add(line string) {
	line = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(line, "?"))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last = append(c.last, line); len(c.last) > consoleLines {
		c.last = slices.Delete(c.last, 0, len(c.last)-consoleLines)
	}
	if strings.Contains(line, "Linux version ") {
		select {
		case <-c.begun:
		default:
			close(c.begun)
		}
	}
	c.finder.Line(line)
	select {
	case c.heard <- struct{}{}:
	default:
	}
}

// Tail returns the last n lines.
func (c *Console) Tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.last[max(0, len(c.last)-n):]
	return strings.Join(lines, "\n")
}

// Splats returns the kernel's reports on itself. At the console's end it has all of them.
func (c *Console) Splats() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.splats = append(c.splats, c.finder.Take()...)
	return slices.Clone(c.splats)
}

// waitOver waits for the console's end.
func (c *Console) waitOver(patience time.Duration) bool {
	select {
	case <-c.over:
		return true
	case <-time.After(patience):
		return false
	}
}
