package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

// kind tells what a message is for.
type kind byte

const (
	good     kind = 'g'
	slow     kind = 's'
	hostile  kind = 'h' // whole, or not at all
	smuggler kind = 'm' // its content looks like an end of message and commands
	torn     kind = 't' // in chunks, and the client may break off
)

// id identifies a message. Together with the seed, all of the message follows
// from it.
type id struct {
	kind      kind
	slot, seq int // which client's, and its how manieth
}

func (i id) String() string { return fmt.Sprintf("%c%d-%d", i.kind, i.slot, i.seq) }

const domain = "@soak.example"

// sender is the reverse-path, which names the message.
func (i id) sender() string { return i.String() + domain }

// idOf returns the message that a sender names.
func idOf(sender string) (id, bool) {
	name, ok := strings.CutSuffix(sender, domain)
	if !ok || len(name) < 4 {
		return id{}, false
	}
	slot, seq, _ := strings.Cut(name[1:], "-")
	i := id{kind: kind(name[0])}
	var err1, err2 error
	i.slot, err1 = strconv.Atoi(slot)
	i.seq, err2 = strconv.Atoi(seq)
	return i, err1 == nil && err2 == nil && i.String() == name
}

// recipient is one RCPT command, and what comes of it.
type recipient struct {
	sent string // the address
	kept string // the one that the server accepts; empty if nobody does
	want expect
}

// message is one that a client sends.
type message struct {
	id
	to      []recipient
	content []byte   // as it has to be delivered
	wire    []byte   // as DATA sends it, with its end; nil with chunks
	chunks  [][]byte // as BDAT sends it
	binary  bool     // BODY=BINARYMIME
	bare    bool     // it is sent with a bare CR or LF
}

// compose makes the message with the given id.
func compose(seed uint64, i id) *message {
	rng := rand.New(rand.NewPCG(seed^uint64(i.kind)<<56, uint64(i.slot)<<32|uint64(uint32(i.seq))))
	m := &message{id: i}
	for n := range 1 + rng.IntN(4) {
		m.to = append(m.to, newRecipient(rng.IntN(8), n, i))
	}
	m.to = append(m.to, newRecipient(7, len(m.to), i)) // one is accepted

	chunked := i.kind == torn || (i.kind == good || i.kind == slow) && rng.IntN(3) == 0
	m.binary = chunked && rng.IntN(2) == 0
	switch size := sizeOf(rng, i.kind); {
	case i.kind == smuggler:
		p := payloads[rng.IntN(len(payloads))]
		m.bare = p.bare
		tail := evil(i.String()) + "\r\n"
		if rng.IntN(3) == 0 {
			// In a chunk, what would end DATA ends nothing, and dots stay.
			m.content = m.complete("x\r\n.\r\n" + p.wire + tail)
			m.chunks = [][]byte{m.content}
			break
		}
		kept := "x" + p.kept + tail
		m.content = m.complete(kept)
		m.wire = []byte(string(m.head(kept)) + "x" + p.wire + tail + ".\r\n")
	case m.binary:
		m.content = m.complete(octets(rng, seed, size, evil(i.String())))
	default:
		m.content = m.complete(text(rng, seed, size))
	}
	switch {
	case chunked:
		m.chunks = split(rng, m.content)
	case m.wire == nil && m.chunks == nil:
		m.wire = append(stuff(m.content), ".\r\n"...)
	}
	return m
}

// newRecipient makes a recipient whose address, and so each reply to it, names
// the message and the recipient's place in it.
func newRecipient(dice, n int, i id) recipient {
	local := fmt.Sprintf("%d.%v", n, i)
	switch dice {
	case 0: // the backend refuses it
		a := "no" + local + domain
		return recipient{a, "", expect{550, "no user " + a}}
	case 1: // the hook refuses it
		a := "barred" + local + domain
		return recipient{a, "", expect{554, "barred: TO:<" + a + ">"}}
	case 2: // the hook changes it
		a := "moved" + local
		return recipient{a + "@old.example", a + domain, expect{250, "<" + a + domain + ">"}}
	}
	a := "user" + local + domain
	return recipient{a, a, expect{250, "<" + a + ">"}}
}

func (m *message) kept() []string {
	var list []string
	for _, r := range m.to {
		if r.kept != "" {
			list = append(list, r.kept)
		}
	}
	return list
}

// head is the first line of a message. It has the digest of all that a server
// must not change, so that a delivered message tells by itself whether it is
// whole.
func (m *message) head(rest string) []byte {
	h := newDigest(m.kept())
	h.Write([]byte(rest))
	return fmt.Appendf(nil, "Soak: %v %d %x\r\n", m.id, len(rest), h.Sum(nil))
}

func (m *message) complete(rest string) []byte { return append(m.head(rest), rest...) }

// newDigest begins with the envelope.
func newDigest(to []string) hash.Hash {
	h := sha256.New()
	for _, a := range to {
		h.Write([]byte(a + "\n"))
	}
	return h
}

// sizeOf is mostly some KiB; good clients also send large messages.
func sizeOf(rng *rand.Rand, k kind) int {
	limit := 64 << 10
	switch dice := rng.IntN(200); {
	case dice < 16:
		return 0
	case k == good && dice == 199:
		return 256<<10 + rng.IntN(768<<10)
	case k != good:
		limit = 8 << 10 // octet by octet, more takes too long
	}
	return int(math.Exp(rng.Float64() * math.Log(float64(limit))))
}

// text returns lines of content that a server might trip over. No CR or LF is
// bare.
func text(rng *rand.Rand, seed uint64, size int) string {
	n := noiseOf(seed)
	var b strings.Builder
	for b.Len() < size {
		switch rng.IntN(12) {
		case 0:
			b.WriteString(".")
		case 1:
			b.WriteString("..")
		case 2:
			b.WriteString(". ")
		case 3:
		case 4:
			b.WriteString("." + n.ascii.pick(rng, 70))
		case 5:
			b.WriteString(n.eight.pick(rng, 8000)) // servers have other limits for commands
		case 6:
			b.WriteString("QUIT")
		case 7, 8:
			b.WriteString(n.eight.pick(rng, 76))
		default:
			b.WriteString(n.ascii.pick(rng, 76))
		}
		b.WriteString("\r\n")
	}
	return b.String()
}

// octets returns binary content. Between ends of DATA, it has something more.
func octets(rng *rand.Rand, seed uint64, size int, more string) string {
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(noiseOf(seed).binary.pick(rng, 4000))
		if rng.IntN(4) == 0 {
			b.WriteString("\r\n.\r\n" + more + "\r\n.\r\n")
		}
	}
	return b.String()
}

// stuff doubles the dot that a line begins with (RFC 5321 section 4.5.2).
func stuff(content []byte) []byte {
	b := bytes.ReplaceAll(content, []byte("\r\n."), []byte("\r\n.."))
	if bytes.HasPrefix(b, []byte(".")) {
		b = append([]byte("."), b...)
	}
	return b
}

// split makes chunks of content, empty ones too.
func split(rng *rand.Rand, content []byte) (chunks [][]byte) {
	for range rng.IntN(5) {
		n := rng.IntN(len(content) + 1)
		chunks, content = append(chunks, content[:n]), content[n:]
	}
	return append(chunks, content)
}

// noise is what random content is cut from, since to cut is faster than to
// draw.
type noise struct{ ascii, eight, binary block }

type block string

func (b block) pick(rng *rand.Rand, most int) string {
	n := rng.IntN(most + 1)
	i := rng.IntN(len(b) - n)
	return string(b[i : i+n])
}

var noises sync.Map // of noise, by seed

func noiseOf(seed uint64) noise {
	if n, ok := noises.Load(seed); ok {
		return n.(noise)
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	var a, e, b [128 << 10]byte
	for i := range a {
		a[i] = ' ' + byte(rng.IntN(95))
		b[i] = byte(rng.IntN(256))
		for e[i] = '\r'; e[i] == '\r' || e[i] == '\n'; {
			e[i] = byte(rng.IntN(256))
		}
	}
	n, _ := noises.LoadOrStore(seed, noise{block(a[:]), block(e[:]), block(b[:])})
	return n.(noise)
}
