package report

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pfdivert/roles/lab/labtest"
)

var shots = flag.String("shots", "", "keep the browser's screenshots in the folder `DIR`")

// browser is a headless Chromium that is driven by the DevTools protocol over a pair of
// pipes (https://chromedevtools.github.io/devtools-protocol/): JSON with a NUL behind
// each message.
type browser struct {
	t       *testing.T
	to      io.Writer
	answers chan devtools
	id      int
	session string
	events  []devtools // since the last navigation
}

// devtools is a message from the browser.
type devtools struct {
	ID     int
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *struct{ Message string }
}

// patience is how long the browser may take for anything.
const patience = 60 * time.Second

func startBrowser(t *testing.T) *browser {
	file := labtest.Program(t, "chromium")
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(file, "--headless", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run",
		"--disable-extensions",
		"--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
		"--user-data-dir="+filepath.Join(dir, "data"),
		// As root, and in containers, it refuses to make its own sandbox; the page is the test's
		// own.
		"--no-sandbox")
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	b := &browser{t: t, to: in, answers: make(chan devtools, 1000)}
	go func() {
		defer close(b.answers)
		r := bufio.NewReader(out)
		for {
			text, err := r.ReadBytes(0)
			if err != nil {
				return
			}
			var m devtools
			if json.Unmarshal(text[:len(text)-1], &m) == nil {
				b.answers <- m
			}
		}
	}()
	t.Cleanup(func() {
		// The end of its pipe ends it, with all its processes, which then are done with its folder.
		in.Close()
		timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		out.Close()
		if t.Failed() {
			t.Logf("chromium said:\n%s", &said)
		}
	})
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	b.session = session.SessionID
	for _, domain := range []string{"Page", "Network", "Runtime", "Log"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

// call asks the browser for something.
func (b *browser) call(method string, params any, result any) {
	b.t.Helper()
	b.id++
	text, err := json.Marshal(struct {
		ID      int    `json:"id"`
		Method  string `json:"method"`
		Params  any    `json:"params,omitempty"`
		Session string `json:"sessionId,omitempty"`
	}{b.id, method, params, b.session})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	m := b.wait(func(m devtools) bool { return m.ID == b.id })
	if m.Error != nil {
		b.t.Fatalf("%s: %s", method, m.Error.Message)
	}
	if result != nil {
		if err := json.Unmarshal(m.Result, result); err != nil {
			b.t.Fatal(err)
		}
	}
}

// wait collects events until a message is the one that is waited for.
func (b *browser) wait(is func(devtools) bool) devtools {
	b.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m, ok := <-b.answers:
			if !ok {
				b.t.Fatal("the browser ended")
			}
			if m.Method != "" {
				b.events = append(b.events, m)
			}
			if is(m) {
				return m
			}
		case <-timeout:
			b.t.Fatal("the browser does not answer")
		}
	}
}

// open shows a page in a window of a size and a mode.
func (b *browser) open(file string, width, height int, mode string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height,
		"deviceScaleFactor": 1, "mobile": width < 500}, nil)
	b.call("Emulation.setEmulatedMedia",
		map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": mode}}}, nil)
	b.call("Page.navigate", map[string]any{"url": "about:blank"}, nil)
	b.events = nil
	b.call("Page.navigate", map[string]any{"url": "file://" + file}, nil)
	b.wait(func(m devtools) bool { return m.Method == "Page.loadEventFired" })
}

// eval returns the value of an expression in the page.
func (b *browser) eval(expression string) any {
	b.t.Helper()
	var got struct {
		Result           struct{ Value any }
		ExceptionDetails any
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &got)
	if got.ExceptionDetails != nil {
		b.t.Fatalf("%s: %v", expression, got.ExceptionDetails)
	}
	return got.Result.Value
}

// is fails when an expression is not true in the page.
func (b *browser) is(expression string) {
	b.t.Helper()
	if got := b.eval(expression); got != true {
		b.t.Errorf("%s is %v", expression, got)
	}
}

// press presses a key.
func (b *browser) press(key string) {
	b.t.Helper()
	code := map[string]int{"Tab": 9, "Enter": 13}[key]
	text := map[string]string{"Enter": "\r"}[key]
	b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyDown", "key": key, "code": key,
		"windowsVirtualKeyCode": code, "text": text}, nil)
	b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "code": key,
		"windowsVirtualKeyCode": code}, nil)
}

// click clicks on an element.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.eval(fmt.Sprintf("document.querySelector(%q).scrollIntoView({block: 'center'})", selector))
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		at := func(axis, size string) any {
			return b.eval(fmt.Sprintf("(r => r.%s + r.%s / 2)(document.querySelector(%q).getBoundingClientRect())",
				axis, size, selector))
		}
		b.call("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at("left", "width"),
			"y": at("top", "height"), "button": "left", "clickCount": 1}, nil)
	}
}

// tabTo presses Tab until an expression is true of what has the focus.
func (b *browser) tabTo(expression string) {
	b.t.Helper()
	for range 400 {
		b.press("Tab")
		if b.eval("(a => "+expression+")(document.activeElement)") == true {
			return
		}
	}
	b.t.Fatalf("Tab does not lead to where %s", expression)
}

// quiet fails when the page asked for anything but itself, or said or did anything.
func (b *browser) quiet(file string) {
	b.t.Helper()
	b.is("document.scripts.length == 0 && typeof pwned == 'undefined'")
	for _, e := range b.events {
		switch e.Method {
		case "Network.requestWillBeSent":
			var p struct{ Request struct{ URL string } }
			if err := json.Unmarshal(e.Params, &p); err != nil || p.Request.URL != "file://"+file {
				b.t.Errorf("the page asks for %s", p.Request.URL)
			}
		case "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening",
			"Page.windowOpen":
			b.t.Errorf("%s: %s", e.Method, e.Params)
		}
	}
}

// legible fails when a table or diagram that is wider than the window is squeezed or cut off in
// place of being scrolled, when headings leave out a level, or a region or picture has no name.
func (b *browser) legible() {
	b.t.Helper()
	for _, expression := range []string{
		// The rows of the matrix have one line, those of lists too, where no text is long.
		"all('.matrix tbody tr').every(r => r.offsetHeight < 48)",
		"all('.list td:not(.long)').every(c => c.firstChild == null || lines(c) == 1)",
		"all('.list .long').every(c => c.offsetWidth > 240)",
		// What is in a region that scrolls can be scrolled to.
		"all('.scroll table, .ladder text').every(e => box(e).right <= box(e.closest('.scroll')).left + e.closest('.scroll').scrollWidth + 1)",
		"all('.scroll').every(e => e.tabIndex == 0 && e.getAttribute('role') == 'region' && e.ariaLabel.length > 8)",
		"all('[tabindex]').every(e => e.tabIndex <= 0)", // else the order of the keyboard is not the page's
		"all('svg[role=img]').every(e => e.getAttribute('aria-labelledby').split(' ').every(id => document.getElementById(id).textContent.length > 8))",
		"all('h1, h2, h3, h4').every((h, i, hs) => h.tagName[1] <= (i ? +hs[i - 1].tagName[1] + 1 : 1))",
		"all('html[lang=en] > body > header').length == 1 && all('body > main').length == 1",
		"all('th').every(h => ['row', 'col', 'colgroup'].includes(h.scope))",
		// Links and what opens are big enough for a finger (WCAG 2.2, 2.5.8).
		"all('a.v, summary').every(e => e.offsetHeight == 0 || e.offsetHeight >= 24)",
	} {
		b.is(`((all, box, lines) => ` + expression + `)(s => [...document.querySelectorAll(s)], e => e.getBoundingClientRect(),
			e => { const r = document.createRange(); r.selectNodeContents(e); return new Set([...r.getClientRects()].map(x => x.top)).size })`)
	}
}

// keep writes a screenshot of the whole page.
func (b *browser) keep(name string) {
	b.t.Helper()
	var got struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &got)
	data, err := base64.StdEncoding.DecodeString(got.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*shots, name+".png"), data, 0o666); err != nil {
		b.t.Fatal(err)
	}
}

// TestBrowser: in a browser, wide and narrow, light and dark, the pages are as wide as the
// window, ask for nothing, run nothing, and can be used by keyboard.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	b := startBrowser(t)
	dir := t.TempDir()
	pages := htmlPages()
	for _, name := range []string{"evidence", "hostile-page", "hosts", "stats", "passed", "interrupted", "thirteen",
		"claims", "families"} {
		var html bytes.Buffer
		run, summaries := pages[name]()
		if err := WriteHTML(&html, run, summaries); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name+".html")
		if err := os.WriteFile(file, html.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
		for _, view := range []struct {
			name  string
			width int
			mode  string
			back  string // body's background
		}{
			{"light", 1280, "light", "rgb(255, 255, 255)"}, {"dark", 1280, "dark", "rgb(20, 23, 26)"},
			{"narrow", 390, "light", "rgb(255, 255, 255)"}, {"narrow-dark", 390, "dark", "rgb(20, 23, 26)"},
		} {
			if name != "evidence" && name != "hostile-page" && view.name != "narrow" && *shots == "" {
				continue // nothing is there that those have not
			}
			b.open(file, view.width, 800, view.mode)
			b.is(fmt.Sprintf("document.documentElement.scrollWidth <= %d", view.width))
			b.is(fmt.Sprintf("getComputedStyle(document.body).backgroundColor == %q", view.back))
			b.is("document.title.startsWith('pfdivert: ') && document.compatMode == 'CSS1Compat'")
			// What opens is as wide as the window too.
			b.eval("document.querySelectorAll('details').forEach(d => d.open = true)")
			b.eval("document.querySelectorAll('.quiet').forEach(s => s.classList.remove('quiet'))")
			b.is(fmt.Sprintf("document.documentElement.scrollWidth <= %d", view.width))
			b.legible()
			b.quiet(file)
			if *shots != "" {
				b.open(file, view.width, 800, view.mode)
				if name == "passed" {
					b.eval("location.hash = '#c3'")
				}
				b.keep(name + "-" + view.name)
			}
		}
	}
	t.Run("failures first", func(t *testing.T) {
		b.t = t
		file := filepath.Join(dir, "thirteen.html")
		b.open(file, 1280, 800, "light")
		// A card for each cause, the worst first, above the matrix; the badge of a verdict leads
		// there.
		b.is("[...document.querySelectorAll('main > *')].findIndex(e => e.id == 'matrix') == 4")
		b.is("[...document.querySelectorAll('main > .cell')].slice(0, 3).map(e => e.className).join() == 'cell error,cell fail,cell fail'")
		b.is("document.querySelectorAll('.names a').length == 10")
		b.click(".counts .fail")
		b.is("document.querySelector(':target.cell.fail').getBoundingClientRect().top >= 0")
		b.click(".counts .pass")
		b.is("location.hash == '#matrix'")
		b.quiet(file)
		// What a run succeeds with is folded, until its badge opens it.
		b.open(filepath.Join(dir, "claims.html"), 1280, 800, "light")
		b.is("!document.querySelector('#skip').parentElement.open && document.querySelectorAll('#skip a').length == 48")
		b.click(".counts .skip")
		b.is("document.querySelector('#skip').parentElement.open && location.hash == '#skip'")
		b.is("matrix.getBoundingClientRect().top < document.querySelector('#skip').getBoundingClientRect().top")
	})
	t.Run("sideways", func(t *testing.T) {
		b.t = t
		file := filepath.Join(dir, "families.html")
		b.open(file, 390, 800, "light")
		b.is("document.querySelector('.narrow').offsetHeight > 0")
		b.is("document.querySelector('.scroll').scrollWidth > document.querySelector('.scroll').clientWidth")
		// In the middle of a host's columns its name is in sight, beside the names of the targets.
		b.eval("document.querySelector('.scroll').scrollLeft = 60")
		b.is("(h => h.left >= document.querySelector('.matrix tbody th').getBoundingClientRect().right - 1)" +
			"(document.querySelector('.host').getBoundingClientRect())")
		b.open(file, 1280, 800, "light")
		b.is("document.querySelector('.narrow').offsetHeight == 0")
	})
	t.Run("keyboard", func(t *testing.T) {
		b.t = t
		file := filepath.Join(dir, "evidence.html")
		b.open(file, 1280, 800, "light")
		// The second target passed: its section is hidden until it is asked for.
		b.is("getComputedStyle(c2).display == 'none'")
		b.tabTo("a.id == 'mc2'")
		b.is("getComputedStyle(document.activeElement).outlineStyle == 'solid'")
		// Nothing covers the outline, 5 pixels around it.
		b.is("(r => [[r.left - 4, r.top + 9], [r.right + 4, r.top + 9], [r.left + 9, r.top - 3], [r.left + 9, r.bottom + 3]]" +
			".every(at => ['TD', 'TR', 'A'].includes(document.elementFromPoint(...at).tagName)))(document.activeElement.getBoundingClientRect())")
		b.press("Enter")
		b.is("location.hash == '#c2' && getComputedStyle(c2).display == 'block'")
		b.is("c2.getBoundingClientRect().top >= 0 && c2.getBoundingClientRect().top < innerHeight")
		b.tabTo("a.tagName == 'SUMMARY' && c2.contains(a)")
		b.is("!document.activeElement.parentElement.open")
		b.press("Enter")
		b.is("document.activeElement.parentElement.open")
		if *shots != "" {
			b.keep("opened")
		}
		b.tabTo("a.getAttribute('href') == '#mc2'")
		b.press("Enter")
		b.is("location.hash == '#mc2' && getComputedStyle(c2).display == 'none'")
		b.quiet(file)
	})
	t.Run("dark", func(t *testing.T) {
		b.t = t
		b.open(filepath.Join(dir, "evidence.html"), 1280, 800, "dark")
		for element, property := range map[string]string{".ladder .what": "fill", ".ladder .way": "stroke",
			"main p": "color", "pre": "color", ".list td": "color"} {
			b.is(fmt.Sprintf("getComputedStyle(document.querySelector(%q)).%s.match(/\\d+/g).every(part => part > 120)", element, property))
		}
	})
	t.Run("without scripts", func(t *testing.T) {
		b.t = t
		b.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)
		defer b.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": false}, nil)
		b.open(filepath.Join(dir, "evidence.html"), 360, 800, "light")
		b.is("getComputedStyle(c2).display == 'none'")
		b.click("#mc2")
		b.is("location.hash == '#c2' && getComputedStyle(c2).display == 'block'")
		b.click("#c2 summary")
		b.is("document.querySelector('#c2 details').open && document.querySelector('#c2 details .list').offsetHeight > 0")
	})
	t.Run("print", func(t *testing.T) {
		b.t = t
		b.open(filepath.Join(dir, "evidence.html"), 800, 800, "dark")
		b.call("Emulation.setEmulatedMedia", map[string]any{"media": "print",
			"features": []any{map[string]any{"name": "prefers-color-scheme", "value": "dark"}}}, nil)
		b.is("getComputedStyle(document.body).backgroundColor == 'rgb(255, 255, 255)' && getComputedStyle(document.body).color == 'rgb(28, 32, 36)'")
		// What is closed on the screen is on paper.
		b.is("document.querySelector('#skip').offsetHeight > 8")
		b.is("[...document.querySelectorAll('#c3 .list, #c3 pre')].every(e => e.getBoundingClientRect().height > 8)")
		b.is("[...document.querySelectorAll('.list')].every(e => e.getBoundingClientRect().right <= 800)")
		b.is("[...document.querySelectorAll('#c3 .ladder')].every(e => e.getBoundingClientRect().width <= 800)")
		if *shots != "" {
			b.keep("evidence-print")
		}
		b.call("Emulation.setEmulatedMedia", map[string]any{"media": ""}, nil)
	})
	t.Run("can fail", func(t *testing.T) {
		// What the test looks for is found where it is: a page that asks for another and whose
		// script the policy stops.
		b.t = t
		file := filepath.Join(dir, "bad.html")
		var html bytes.Buffer
		if err := WriteHTML(&html, run26, nil); err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(html.String(), "<main>", "<main><img src='other.png'><script>pwned = 1</script>", 1)
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		b.open(file, 360, 800, "light")
		said := 0
		for _, e := range b.events {
			if e.Method == "Log.entryAdded" && bytes.Contains(e.Params, []byte("Content Security Policy")) {
				said++
			}
		}
		if said < 2 {
			t.Errorf("the policy stopped %d of an image and a script", said)
		}
		b.is("document.scripts.length == 1 && typeof pwned == 'undefined'")
	})
}
