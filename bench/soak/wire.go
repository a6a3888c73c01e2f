package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

// errCut is the error of a client that has broken the connection off itself.
var errCut = errors.New("cut by the client")

// wire is a client's connection. It may be slow, and it may break off.
type wire struct {
	*net.TCPConn
	rng   *rand.Rand
	slow  bool
	pause time.Duration   // the longest, of a slow one
	stop  <-chan struct{} // no more pauses
	left  int             // octets until it breaks off; negative: it doesn't
	way   breaking
}

// breaking is a way to break a connection off.
type breaking int

const (
	reset  breaking = iota // RST
	finish                 // FIN
	halve                  // FIN, but what comes is read
	breakings
)

// Write implements net.Conn. TLS, too, is written this way.
func (w *wire) Write(p []byte) (int, error) {
	if w.left >= 0 && len(p) > w.left {
		p = p[:w.left]
		w.left = 0
		w.write(p)
		w.breakOff()
		return 0, errCut
	}
	if w.left >= 0 {
		w.left -= len(p)
	}
	return w.write(p)
}

// write trickles what a slow client has to say: octet by octet at first, then
// in small pieces, with a few pauses.
func (w *wire) write(p []byte) (n int, err error) {
	if !w.slow {
		return w.TCPConn.Write(p)
	}
	pauses := 4
	for n < len(p) {
		k := 1
		if n >= 64 {
			k = 1 + w.rng.IntN(300)
		}
		m, err := w.TCPConn.Write(p[n:min(n+k, len(p))])
		n += m
		if err != nil {
			return n, err
		}
		if pauses > 0 && w.rng.IntN(16) == 0 {
			pauses--
			w.rest()
		}
	}
	return n, nil
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	if w.slow && len(p) > 0 {
		p = p[:min(len(p), 1+w.rng.IntN(64))]
		if w.rng.IntN(16) == 0 {
			w.rest()
		}
	}
	return w.TCPConn.Read(p)
}

func (w *wire) rest() { wait(w.stop, rand.N(w.pause+1)) }

func (w *wire) breakOff() {
	switch w.way {
	case reset:
		w.SetLinger(0)
	case halve:
		w.CloseWrite()
		w.SetReadDeadline(time.Now().Add(patience))
		io.Copy(io.Discard, w.TCPConn)
	}
	w.Close()
}

// wait waits, but not when the end has come, which it reports.
func wait(stop <-chan struct{}, d time.Duration) (stopped bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-stop:
		return true
	case <-t.C:
		return false
	}
}
