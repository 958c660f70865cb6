package sshtest

import (
	"io"
	"net"
	"os"
	"time"
)

// delay is a ProxyCommand over which everything takes its time.
func delay(address string, each time.Duration) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	type piece struct {
		at time.Time
		b  []byte
	}
	late := func(w io.Writer, r io.Reader, end func()) {
		pieces := make(chan piece, 1000)
		go func() {
			defer close(pieces)
			for {
				b := make([]byte, 32<<10)
				n, err := r.Read(b)
				if n > 0 {
					pieces <- piece{time.Now().Add(each), b[:n]}
				}
				if err != nil {
					return
				}
			}
		}()
		for p := range pieces {
			time.Sleep(time.Until(p.at))
			if _, err := w.Write(p.b); err != nil {
				break
			}
		}
		end()
	}
	go late(c, os.Stdin, func() { c.(*net.TCPConn).CloseWrite() })
	late(os.Stdout, c, func() {})
	return nil
}
